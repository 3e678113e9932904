"""The rejected rows of an ingestion: listed, counted, and as the error file (S128)."""

import json

import pytest
from tests.api.world import ingest, manifest, nothing_is_applied, until

ROWS = b"identity,Age,Phone\nann,1,\nbob,x,12\n\n,3,\nzoe,y,\nmax,1,2,3\n"
AGE = {"Age": {"dataType": "INTEGER"}}


@pytest.mark.rule("S128", "D34")
async def test_rejected_rows_are_listed_with_line_and_reasons_in_pages(tenant):
    ended = await tenant.push(ROWS, columns=AGE)
    path = f"/v1/ingestions/{ended['id']}/errors"
    first = await tenant.http.get(path, params={"limit": 3})
    rest = await tenant.http.get(path, params={"limit": 3, "cursor": first.json()["next_cursor"]})
    rows = first.json()["data"] + rest.json()["data"]
    assert [(row["line"], row["codes"]) for row in rows] == [
        (3, ["integer_invalid", "phone_invalid"]),
        (5, ["identifier_missing"]),
        (6, ["integer_invalid"]),
        (7, ["field_count"]),
    ]
    assert rows[0]["description"] == "Age: not an INTEGER of 32 bits (LONG has 64); Phone number is not valid"
    assert rows[3]["description"] == "The record has 4 fields, the header has 3 (line 7)"
    assert rest.json()["next_cursor"] is None
    assert {"bob", "zoe", "max"}.isdisjoint(first.text + rest.text)
    assert (await tenant.http.get(path, params={"sort": "-row"})).status_code == 422


@pytest.mark.rule("S128")
async def test_rejected_rows_are_counted_by_reason(tenant):
    ended = await tenant.push(ROWS, columns=AGE)
    found = (await tenant.http.get(f"/v1/ingestions/{ended['id']}/error-summary")).json()
    assert found["rejected"] == ended["counts"]["rejected"] == 4
    assert [(reason["code"], reason["rows"]) for reason in found["reasons"]] == [
        ("integer_invalid", 2),
        ("field_count", 1),
        ("identifier_missing", 1),
        ("phone_invalid", 1),
    ]
    assert found["reasons"][1]["rule"] == "D44"
    assert [reason["sentence"] for reason in found["reasons"][:2]] == [
        "not an INTEGER of 32 bits (LONG has 64)",
        "The record has … fields, the header has …",
    ]


@pytest.mark.rule("S128")
async def test_there_is_no_error_file_before_the_end(tenant, ground):
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", ROWS, columns=AGE)
        await until(tenant, ingestion, stage="applying")
        early = await tenant.http.get(f"/v1/ingestions/{ingestion}/error-file")
        assert (early.status_code, early.json()["code"]) == (404, "not_found")
    await tenant.ended(ingestion)
    assert (await tenant.http.get(f"/v1/ingestions/{ingestion}/error-file")).status_code == 200


async def test_a_file_without_rejected_rows_has_no_errors_and_no_error_file(tenant):
    ended = await tenant.push(b"identity\nann\n")
    path = f"/v1/ingestions/{ended['id']}"
    assert (await tenant.http.get(f"{path}/errors")).json() == {"data": [], "next_cursor": None}
    assert (await tenant.http.get(f"{path}/error-summary")).json() == {"rejected": 0, "reasons": []}
    assert (await tenant.http.get(f"{path}/error-file")).status_code == 404


@pytest.mark.threat("T62")
async def test_one_range_of_the_error_file_can_be_asked_for(tenant):
    ended = await tenant.push(ROWS, columns=AGE)
    path = f"/v1/ingestions/{ended['id']}/error-file"
    whole = await tenant.http.get(path)
    size, tag = len(whole.content), whole.headers["etag"]
    assert (size, whole.headers["accept-ranges"]) == (ended["error_file"]["size_bytes"], "bytes")
    for asked, start, end in (("0-9", 0, 10), ("10-", 10, size), ("-7", size - 7, size), (f"5-{size * 2}", 5, size)):
        part = await tenant.http.get(path, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole.content[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in (f"bytes={size}-", "bytes=-0"):
        behind = await tenant.http.get(path, headers={"Range": asked})
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{size}"), asked
        assert behind.json()["code"] == "range_not_satisfiable"
    many = ",".join(f"{at}-{at}" for at in range(1000))
    for asked in (f"bytes={many}", "bytes=9-1", "bytes=-", "lines=1-2", "bytes=x"):
        all_of_it = await tenant.http.get(path, headers={"Range": asked})
        assert (all_of_it.status_code, all_of_it.content) == (200, whole.content), asked[:20]
    same = await tenant.http.get(path, headers={"Range": "bytes=0-0", "If-Range": tag})
    other = await tenant.http.get(path, headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_the_error_file_has_a_strong_etag_and_a_head(tenant):
    ended = await tenant.push(ROWS, columns=AGE)
    path = f"/v1/ingestions/{ended['id']}/error-file"
    head = await tenant.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == ended["error_file"]["size_bytes"]
    tag = head.headers["etag"]
    assert tag.startswith('"')
    known = await tenant.http.get(path, headers={"If-None-Match": tag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)


@pytest.mark.threat("T61")
async def test_the_error_file_is_an_attachment_whose_name_breaks_no_header(tenant):
    name = "Käse (neu) 1.csv"
    await tenant.put(name, b"identity,Age\nbob,x\n")
    await tenant.put("x.manifest", json.dumps(manifest(name, columns=AGE)).encode())
    ended = await tenant.ended()
    answer = await tenant.http.get(f"/v1/ingestions/{ended['id']}/error-file")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"K_se (neu) 1.errors.csv\"; filename*=UTF-8''K%C3%A4se%20%28neu%29%201.errors.csv"
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "no-store" in answer.headers["cache-control"]
