"""The measurements run, and what they write is whole; how fast it was is not judged here."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


async def measured(out, *arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(out)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    table, _ = await process.communicate()
    assert process.returncode == 0
    figures = json.loads(out.read_text())
    assert all(figure in table.decode() for figure in (f"{figures[0]['seconds']}", figures[0]["machine"]["processor"]))
    for each in figures:
        assert each["machine"].keys() == {"processor", "cores", "memory_gb", "system", "load"}
        assert each["postgres_settings"]["fsync"] == each["postgres_settings"]["synchronous_commit"] == "on"
        assert each["postgres_settings"]["full_page_writes"] == "on"
        assert {"python", "postgresql", "ingestd"} <= each["versions"].keys()
    return figures


async def test_loads_of_profiles_are_measured_and_their_rejected_rows_compared_with_the_truth(tmp_path):
    figures = await measured(tmp_path / "out.json", "profiles", "--mb", "0.5")
    assert [load["variant"] for load in figures] == ["first", "again", "updates"]
    for load in figures:
        assert load["work"] == "profiles"
        assert load["mb"] == pytest.approx(0.5, rel=0.1)
        assert load["rows_rejected"] == load["truth_rejected"] > 0
        assert load["rejected_as_truth"]
        assert load["rows_accepted"] > 50 * load["rows_rejected"]
        assert load["mb_per_s"] == pytest.approx(load["mb"] / load["seconds"], rel=0.2)
        assert load["ratio_raw_copy"] == pytest.approx(load["raw_copy_seconds"] / load["seconds"], rel=0.2)
        assert load["peak_pss_mb"] > 100
        assert load["wal_mb"] > 0


async def test_loads_of_events_are_measured_and_their_rejected_rows_compared_with_the_truth(tmp_path):
    figures = await measured(tmp_path / "out.json", "events", "--mb", "0.2")
    assert [(load["work"], load["variant"]) for load in figures] == [("events", "first"), ("events", "again")]
    for load in figures:
        assert load["rows_rejected"] == load["truth_rejected"] > 0
        assert load["rejected_as_truth"]


async def test_refreshes_of_segments_are_measured_and_their_members_compared_with_the_truth(tmp_path):
    figures = await measured(tmp_path / "out.json", "segments", "--mb", "0.1")
    variants = ["SCD first", "SCD refresh", "Non-SCD first", "Non-SCD refresh"]
    assert [each["variant"] for each in figures] == variants
    for each in figures:
        assert each["rejected_as_truth"]
        assert each["members_as_truth"]
        assert each["times_raw_copy"] == pytest.approx(each["seconds"] / each["raw_copy_seconds"], rel=0.2)


async def test_uploads_for_a_data_source_are_measured(tmp_path):
    first, replaced = await measured(tmp_path / "out.json", "upload", "--mb", "0.1")
    assert (first["variant"], replaced["variant"]) == ("first", "replace")
    for each in (first, replaced):
        assert each["rows_rejected"] == each["truth_rejected"] > 0
        assert each["rows_accepted"] > 50 * each["rows_rejected"]


async def test_a_filter_segment_is_found_by_activation_and_anew_by_an_ingestion(tmp_path):
    activated, ingested = await measured(tmp_path / "out.json", "filter", "--profiles", "2000")
    assert (activated["variant"], ingested["variant"]) == ("activated", "ingested")
    assert (activated["members"], ingested["members"]) == (269 + 1, 370)
    for each in (activated, ingested):
        assert each["members_as_truth"]
        assert each["seconds"] > 0


async def test_the_api_is_asked_when_idle_and_while_a_file_is_loaded(tmp_path):
    [latency] = await measured(tmp_path / "out.json", "latency", "--mb", "0.5", "--idle-seconds", "1")
    assert latency["requests"] > 0
    for which in ("", "_idle", "_upload"):
        assert 0 < latency[f"api_p50{which}_ms"] <= latency[f"api_p99{which}_ms"]


async def test_the_api_is_asked_while_a_file_made_to_hurt_is_taken(tmp_path):
    [hostile] = await measured(tmp_path / "out.json", "hostile", "--mb", "0.5", "--kind", "fields too many")
    assert (hostile["status"], hostile["error"]) == ("failed", "nothing_applied")
    assert hostile["rows_rejected"] == hostile["rows_read"] == 500_000 // len("a,b,c\n")
    assert hostile["peak_pss_mb"] > 100
    assert 0 < hostile["api_p50_ms"] <= hostile["api_p99_ms"]


async def test_small_files_are_timed_one_after_the_other(tmp_path):
    first, second = await measured(tmp_path / "out.json", "small", "--runs", "2")
    assert (first["variant"], second["variant"]) == ("first", "next")
    for small in (first, second):
        assert small["rows_accepted"] + small["rows_rejected"] == 100
        assert small["rows_rejected"] == small["truth_rejected"]
        assert small["seconds"] > 0


async def test_webhooks_are_told_though_two_endpoints_are_out_of_order(tmp_path):
    sound, disturbed = await measured(tmp_path / "out.json", "webhooks", "--deliveries", "40")
    assert (sound["variant"], disturbed["variant"]) == ("sound", "two out of order")
    for telling in (sound, disturbed):
        assert (telling["deliveries"], telling["lost"], telling["unexplained_repeats"]) == (40, 0, 0)
        assert 0 < telling["p50_ms"] <= telling["p99_ms"]
        assert min(telling["deliveries_per_s"], telling["bare_per_s"]) > 0


async def test_every_list_is_asked_in_every_order_and_with_every_filter(tmp_path):
    sizes = ("--ingestions", "1000", "--profiles", "1000", "--times", "1", "--deep", "3")
    [lists] = await measured(tmp_path / "out.json", "lists", *sizes)
    document = json.loads((ROOT / "openapi" / "openapi.json").read_text())
    questions = set(lists["questions"])
    for path, operations in document["paths"].items():
        names = {each["name"] for each in operations.get("get", {}).get("parameters", [])}
        if "cursor" in names:
            assert f"{path}?sort=" in {question[: len(path) + 6] for question in questions}
    for name in ("status", "channel", "target", "uploader", "file_name", "created_from", "created_to"):
        assert any(question.startswith("/v1/ingestions?") and f"{name}=" in question for question in questions)
    assert lists["requests"] > len(questions)
    assert all(half <= most <= lists["slowest_p99_ms"] for half, most in lists["questions"].values())


async def test_the_newest_of_many_files_is_found_over_ftp_and_over_sftp(tmp_path):
    ftp, sftp = await measured(tmp_path / "out.json", "listing", "--files", "50", "--runs", "1")
    assert (ftp["variant"], sftp["variant"]) == ("ftp", "sftp")
    for each in (ftp, sftp):
        assert (each["files"], each["right"]) == (50, True)
        assert each["seconds"] > 0
