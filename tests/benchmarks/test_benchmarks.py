"""The measurements run, and what they write is whole; how fast it was is not judged here."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import __main__, service
from ingestd.app.ground import base
from ingestd.cli import accounts
from ingestd.settings import Settings

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def one_for_all():
    """One service, started as each command starts one of its own."""
    with service.workshop(None) as folder, service.serving(folder) as started:
        yield started


@pytest.fixture
def measured(one_for_all, monkeypatch, tmp_path):
    """Run a command, with an account of its own where it would start a service; gives the figures that it wrote."""

    @contextmanager
    def serving(folder, processes=service.PROCESSES):
        data = folder / "data"
        data.mkdir()
        (data / "blobs").symlink_to(one_for_all.data / "blobs")
        for name in ("known_hosts", "master.key"):
            (data / name).hardlink_to(one_for_all.data / name)
        with base(Settings(data_dir=one_for_all.data)) as ground:
            account, key = accounts.make(
                ground, name="benchmark", email_domains=["example.org"], admin=True, import_key=data / "import_key"
            )
        yield replace(one_for_all, data=data, account=account, key=key)

    for each in vars(__main__).values():
        if hasattr(each, "serving"):
            monkeypatch.setattr(each, "serving", serving)

    def run(*arguments):
        out = tmp_path / "out.json"
        said = CliRunner().invoke(__main__.app, [*arguments, "--json", str(out)], catch_exceptions=False)
        assert said.exit_code == 0
        figures = json.loads(out.read_text())
        plot = out.with_suffix(".svg").read_text()
        assert all(each["variant"] in plot for each in figures)
        assert f"{figures[0]['seconds']}" in said.output
        assert figures[0]["machine"]["processor"] in said.output
        for each in figures:
            assert each["machine"].keys() == {"processor", "cores", "memory_gb", "system", "load"}
            assert each["postgres_settings"]["fsync"] == each["postgres_settings"]["synchronous_commit"] == "on"
            assert each["postgres_settings"]["full_page_writes"] == "on"
            assert {"python", "postgresql", "ingestd", "commit"} <= each["versions"].keys()
        return figures

    return run


def test_loads_of_profiles_are_measured_and_their_rejected_rows_compared_with_the_truth(measured):
    figures = measured("profiles", "--mb", "0.5")
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


def test_loads_are_measured_by_size_by_processes_and_by_people_stored_before(measured):
    figures = measured("scaling", "--mb", "0.1", "--mb", "0.2", "--processes", "2", "--people", "300")
    assert [load["variant"] for load in figures] == [
        "0.1 MB, 2 processes, 0 people before",
        "0.2 MB, 2 processes, 0 people before",
        "0.1 MB, 2 processes, 300 people before",
    ]
    assert all(load["rejected_as_truth"] for load in figures)


def test_loads_of_events_are_measured_and_their_rejected_rows_compared_with_the_truth(measured):
    figures = measured("events", "--mb", "0.2")
    assert [(load["work"], load["variant"]) for load in figures] == [("events", "first"), ("events", "again")]
    for load in figures:
        assert load["rows_rejected"] == load["truth_rejected"] > 0
        assert load["rejected_as_truth"]


def test_a_file_is_scanned_and_checked_against_csv_and_a_raw_copy(measured):
    [scan] = measured("scan", "--mb", "0.2", "--runs", "1", "--kind", "tabs")
    assert (scan["work"], scan["variant"]) == ("scan", "tabs")
    assert scan["rows_rejected"] == scan["truth_rejected"] > 0
    assert scan["rejected_as_truth"]
    assert scan["times_csv"] == pytest.approx(scan["csv_seconds"] / scan["scan_seconds"], rel=0.2)
    assert scan["times_raw_copy"] == pytest.approx(scan["raw_copy_seconds"] / scan["seconds"], rel=0.2)


def test_refreshes_of_segments_are_measured_and_their_members_compared_with_the_truth(measured):
    figures = measured("segments", "--mb", "0.1")
    variants = ["SCD first", "SCD refresh", "Non-SCD first", "Non-SCD refresh"]
    assert [each["variant"] for each in figures] == variants
    for each in figures:
        assert each["rejected_as_truth"]
        assert each["members_as_truth"]
        assert each["times_raw_copy"] == pytest.approx(each["seconds"] / each["raw_copy_seconds"], rel=0.2)


def test_uploads_for_a_data_source_are_measured(measured):
    first, replaced = measured("upload", "--mb", "0.1")
    assert (first["variant"], replaced["variant"]) == ("first", "replace")
    for each in (first, replaced):
        assert each["rows_rejected"] == each["truth_rejected"] > 0
        assert each["rows_accepted"] > 50 * each["rows_rejected"]


def test_a_filter_segment_is_found_by_activation_and_anew_by_ingestions(measured):
    found = measured("filter", "--profiles", "2000")
    assert [each["variant"] for each in found] == ["activated", "by a small file", "by a large file"]
    assert [each["members"] for each in found] == [269 + 1, 270 + 100, 270 + 25_000]
    for each in found:
        assert each["members_as_truth"]
        assert each["seconds"] > 0


def test_the_api_is_asked_when_idle_and_while_a_file_is_loaded(measured):
    [latency] = measured("latency", "--mb", "0.5", "--rate", "5", "--idle-seconds", "1")
    assert latency["requests"] > 0
    for which in ("", "_idle", "_upload"):
        assert 0 < latency[f"api_p50{which}_ms"] <= latency[f"api_p99{which}_ms"]


def test_the_api_is_asked_while_a_file_made_to_hurt_is_taken(measured):
    [hostile] = measured("hostile", "--mb", "0.5", "--rate", "5", "--kind", "fields too many")
    assert (hostile["status"], hostile["error"]) == ("failed", "nothing_applied")
    assert hostile["rows_rejected"] == hostile["rows_read"] == 500_000 // len("a,b,c\n")
    assert hostile["peak_pss_mb"] > 100
    assert 0 < hostile["api_p50_ms"] <= hostile["api_p99_ms"]


def test_small_files_are_timed_one_after_the_other(measured):
    first, second = measured("small", "--runs", "2")
    assert (first["variant"], second["variant"]) == ("first", "next")
    for small in (first, second):
        assert small["rows_accepted"] + small["rows_rejected"] == 100
        assert small["rows_rejected"] == small["truth_rejected"]
        assert small["seconds"] > 0


def test_files_that_tie_people_are_timed_one_after_the_other(measured):
    figures = measured("merges", "--people", "50")
    assert [(each["variant"], each["merged"]) for each in figures] == [
        ("one", 0), ("other", 0), ("updates", 0), ("ties", 50), ("again", 0),
    ]  # fmt: skip
    for each in figures:
        assert (each["people"], each["rows_accepted"]) == (50, 50)
        assert each["seconds"] > 0


def test_webhooks_are_told_though_two_endpoints_are_out_of_order(measured):
    sound, disturbed = measured("webhooks", "--deliveries", "40")
    assert (sound["variant"], disturbed["variant"]) == ("sound", "two out of order")
    for telling in (sound, disturbed):
        assert (telling["deliveries"], telling["lost"], telling["unexplained_repeats"]) == (40, 0, 0)
        assert 0 < telling["p50_ms"] <= telling["p99_ms"]
        assert min(telling["deliveries_per_s"], telling["bare_per_s"]) > 0


def test_every_list_is_asked_in_every_order_and_with_every_filter(measured):
    sizes = ("--ingestions", "1000", "--profiles", "1000", "--times", "1", "--deep", "3")
    [lists] = measured("lists", *sizes)
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


def test_the_newest_of_many_files_is_found_over_ftp_and_over_sftp(measured):
    ftp, sftp = measured("listing", "--files", "50", "--runs", "1")
    assert (ftp["variant"], sftp["variant"]) == ("ftp", "sftp")
    for each in (ftp, sftp):
        assert (each["files"], each["right"]) == (50, True)
        assert each["seconds"] > 0
