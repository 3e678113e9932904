"""The walk-through of the documents: the festive offer's file from the upload to the history (S48 to S77)."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLE = (Path(__file__).parent / "files" / "festive_offer.tsv").read_bytes()


@pytest.mark.rule("S56", "S57", "S58", "S59", "S61", "S62", "S63", "S64", "S65", "S68", "S70", "S71", "S72", "S76")
async def test_the_festive_offer_goes_from_its_upload_to_the_history_as_the_documents_have_it(tenant):
    http = tenant.http
    for attribute in (
        {"name": "crmid", "identifier": True},
        {"name": "hm", "format": "PHONE"},
        {"name": "cross sell product"},
    ):
        (await http.post("/v1/attributes", json=attribute)).raise_for_status()

    # Step 1 and 2: +Add New, name and Save.
    source = (await http.post("/v1/data-sources", json={"name": "Festive offer"})).raise_for_status().json()
    # Step 3: upload the TSV file, look at it, and map its columns.
    file = (await http.put("/v1/files/festive_offer.tsv", content=SAMPLE)).raise_for_status().json()
    seen = (await http.post(f"/v1/files/{file['id']}/preview")).raise_for_status().json()
    assert [(each["header"], each["format"]) for each in seen["columns"]] == [
        ("crmid", "STRING"), ("phone", "PHONE"), ("preferences", "STRING"), ("slot_num", "INTEGER"),
    ]  # fmt: skip
    assert seen["suggested_mapping"][0] == {"column": "crmid", "attribute": "crmid", "score": 1.0}
    slot = {"name": "slot_num", "display_name": "Slot number", "format": "INTEGER"}
    mapping = [
        {"column": "crmid", "attribute": "crmid"},
        {"column": "phone", "attribute": "hm", "pii": True},
        {"column": "preferences", "attribute": "cross sell product"},
        {"column": "slot_num", "new_attribute": slot | {"use_in_segments": True, "use_as_macro": True}},
    ]
    # Segment options, upload options, who is told; "Upload Profile data".
    body = {"file_id": file["id"], "data_source_id": source["id"], "mapping": mapping}
    asked = await http.post(
        "/v1/ingestions", json=body | {"segment": {"name": "FESTIVE"}, "notify": ["marketing@example.org"]}
    )
    assert (asked.status_code, asked.json()["status"]) == (202, "scheduled")
    request_id = asked.json()["id"]

    done = await tenant.ended(request_id)
    assert (done["status"], done["counts"]["accepted"], done["counts"]["rejected"]) == ("completed", 3, 1)
    assert [each["name"] for each in (await http.get("/v1/macros")).json()["data"]] == ["SLOT_NUM"]
    attributes = {each["name"]: each for each in (await http.get("/v1/attributes")).json()["data"]}
    assert (attributes["hm"]["pii"], attributes["slot_num"]["segment_name"]) == (True, "SLOT_NUM")
    profile = await tenant.profile("C-1001", "crmid")
    assert profile["attributes"]["cross sell product"] == "home loan"
    assert profile["attributes"]["slot_num"] == 12
    segment = (await http.get(f"/v1/segments/{done['segment']['id']}")).json()
    assert (segment["name"], segment["status"], segment["members"]) == ("FESTIVE", "active", 3)

    # Upload History.
    page = (await http.get("/v1/ingestions", params={"data_source_id": source["id"]})).json()["data"]
    history = [
        (each["id"], each["data_source"]["name"], each["file"]["name"], each["uploaded_by"]["type"], each["status"])
        for each in page
    ]
    assert history == [(request_id, "Festive offer", "festive_offer.tsv", "api_key", "completed")]
    exported = await http.get("/v1/ingestions", headers={"Accept": "text/csv"})
    assert "data_source_name" in exported.text.splitlines()[0]
    assert "Festive offer" in exported.text.splitlines()[1]
