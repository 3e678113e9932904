"""What the committed results of the benchmarks say; nothing is timed here."""

import json
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.rule("S138", "S139")
def test_a_file_of_five_gibibytes_takes_at_most_two_hours():
    loads = json.loads((RESULTS / "profiles.json").read_text())
    assert {load["variant"] for load in loads} >= {"first", "updates"}
    for load in loads:
        assert load["rejected_as_truth"]
        assert load["mb_per_s"] * 1e6 * 2 * 60 * 60 >= 5 * 1024**3


def test_the_figures_of_the_loads_in_the_documentation_are_those_of_the_results():
    documentation = (ROOT / "docs" / "performance.md").read_text()
    loads = json.loads((RESULTS / "profiles.json").read_text())
    variants = list(dict.fromkeys(load["variant"] for load in loads))
    for title, name, written in (
        ("seconds", "seconds", "{:.1f}".format),
        ("rows a second", "rows_per_s", lambda rows: f"{round(rows, -2):,}"),
        ("raw COPY, seconds", "raw_copy_seconds", "{:.2f}".format),
        ("ratio", "ratio_raw_copy", "{:.3f}".format),
        ("memory, MB", "peak_pss_mb", "{:,}".format),
        ("rejected", "rows_rejected", "{:,}, exactly the spoilt ones".format),
    ):
        of_runs = ([load[name] for load in loads if load["variant"] == variant] for variant in variants)
        assert f"\n| {' | '.join([title, *map(written, map(median, of_runs))])} |\n" in documentation
