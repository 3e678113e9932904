"""Files made to hurt: whatever they hold, memory stays bounded and the error file is complete (T83, T84).

Small in `make test`; `make nightly` makes them twenty times as large, so that they are read in several chunks.
"""

import csv
import json
import subprocess
import sys

import pytest
from tests.thorough import FACTOR

from benchmarks.hostile import KINDS, MIB, write

SIZE = round(2 * FACTOR * MIB)
MEMORY = 1024 * MIB
SENTENCES = 60  # times the size of the file: what the reasons of a row of many wrong cells may add

# The peak is the program's own (`VmHWM`): `ru_maxrss` outlives exec and would be that of the process that started it.
PROGRAM = """
import re, sys
from pathlib import Path
from ingestd.cli.check import examine
verdict = examine(*map(Path, sys.argv[1:]), lambda *_: None)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(peak) * 1024, verdict.model_dump_json())
"""


@pytest.mark.timeout(3600)
@pytest.mark.rule("S128", "D44", "D45")
@pytest.mark.threat("T72", "T83", "T84")
@pytest.mark.parametrize("kind", KINDS if FACTOR > 1 else ["fields too many", "every cell wrong"])
def test_a_hostile_file_is_reported_whole_in_bounded_memory(tmp_path, kind):
    data, manifest, errors = (tmp_path / name for name in ("x.csv", "x.manifest", "errors.csv"))
    lines = write(data, KINDS[kind], SIZE)
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, data, manifest, errors], capture_output=True, text=True, check=True
    )
    peak, _, verdict = said.stdout.partition(" ")
    counts = json.loads(verdict)["counts"]
    assert counts["read"] == counts["accepted"] + counts["rejected"] + counts["blank"] <= lines
    if counts["rejected"]:
        with errors.open(newline="") as file:
            assert sum(1 for _ in csv.reader(line.replace("\0", "") for line in file)) == counts["rejected"] + 1
        assert errors.stat().st_size < SENTENCES * data.stat().st_size
    assert int(peak) < MEMORY
