"""One pass over a file: what is bad is reported some batches at a time, as if each had been reported alone."""

import io

import polars as pl
import pytest

from benchmarks import generate
from ingestd.domain.layout import bind
from ingestd.domain.manifest import parse
from ingestd.pipeline import run
from ingestd.pipeline.check import Check
from ingestd.pipeline.report import ErrorFile, RejectLog
from ingestd.pipeline.run import Sinks, check_file
from ingestd.pipeline.scan import open_scan

NOW = 1_700_000_000


def checked(made, late):
    """The counts, the error file, and the log of rejects of a file read in chunks of 20 KB."""
    errors, log = io.BytesIO(), io.BytesIO()
    plan = parse(made.data.with_suffix(".manifest").read_bytes()).plan()
    with made.data.open("rb") as stream:
        scan = open_scan(stream, delimiter=",", limits=plan.limits, chunk_bytes=20_000)
        rejects = RejectLog(log)
        sinks = Sinks(None, ErrorFile(errors, scan.header), rejects)
        counts = check_file(scan, Check(bind(plan, scan.header), plan, NOW), sinks, lambda *_: None, late=late)
        rejects.close()
    return counts, errors.getvalue(), pl.read_ipc_stream(io.BytesIO(log.getvalue()))


@pytest.mark.rule("D34", "S128")
@pytest.mark.parametrize("late", [{}, {2: "identifiers_of_two_people", 900: "identifiers_of_two_people"}])
def test_what_is_bad_reads_alike_however_many_batches_are_reported_together(tmp_path, monkeypatch, late):
    made = generate.profiles(tmp_path / "x.csv", mb=0.3, bad_share=0.1)
    counts, errors, log = checked(made, late)
    assert counts.rejected == log.height == made.rejected + len(late)
    assert log["row_no"].is_sorted()
    for limit in ("MANY_ROWS", "MANY_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(run, limit, 1)
            alone = checked(made, late)
        assert alone[:2] == (counts, errors)
        assert alone[2].equals(log)
