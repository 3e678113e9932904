"""What the committed results of the benchmarks say; nothing is timed here."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.rule("S138", "S139")
def test_a_file_of_five_gibibytes_takes_at_most_two_hours():
    loads = json.loads((RESULTS / "profiles.json").read_text())
    assert {load["variant"] for load in loads} == {"first", "updates"}
    for load in loads:
        assert load["rejected_as_truth"]
        assert load["mb_per_s"] * 1e6 * 2 * 60 * 60 >= 5 * 1024**3
