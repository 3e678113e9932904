"""What the committed results of the benchmarks say; nothing is timed here."""

import json
from pathlib import Path

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
    for title, figure in {
        "seconds": lambda load: f"{load['seconds']:.1f}",
        "rows a second": lambda load: f"{round(load['rows_per_s'], -2):,}",
        "raw COPY, seconds": lambda load: f"{load['raw_copy_seconds']:.2f}",
        "ratio": lambda load: f"{load['ratio_raw_copy']:.3f}",
        "memory, MB": lambda load: f"{load['peak_pss_mb']:,}",
        "rejected": lambda load: f"{load['rows_rejected']:,}, exactly the spoilt ones",
    }.items():
        assert f"\n| {' | '.join([title, *map(figure, loads)])} |\n" in documentation
