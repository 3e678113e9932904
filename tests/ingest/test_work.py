"""What is to be done of one ingestion, and in which order."""

from __future__ import annotations

import pytest

from ingestd.domain.identity import SLICES
from ingestd.ingest.work import interleaved


@pytest.mark.parametrize("parts", [0, 1, 3, 16, 48, 256])
def test_parts_that_follow_one_another_lie_in_different_slices(parts):
    """Else the second would wait until the first has given back the slice that both write."""
    names = [f"part-{number:04d}" for number in range(parts)]
    order = interleaved(names)
    assert sorted(order) == names
    slices = [names.index(name) * SLICES // parts for name in order]
    assert all(len(set(slices[at : at + SLICES])) == SLICES for at in range(parts - SLICES + 1))
