"""Files made to hurt: whatever they hold, memory stays bounded and the error file is complete (T83, T84).

Small in `make test`; `make nightly` makes them twenty times as large, so that they are read in several chunks.
"""

import csv
import json
import subprocess
import sys

import pytest
from tests.thorough import FACTOR

MIB = 1024 * 1024
SIZE = 2 * FACTOR * MIB
MEMORY = 1024 * MIB
SENTENCES = 60  # times the size of the file: what the reasons of a row of many wrong cells may add

NARROW = b"identity,x\n"
WIDE = b"identity" + b"".join(b",c%d" % n for n in range(1999)) + b"\n"
INTEGERS = {f"c{n}": {"dataType": "INTEGER"} for n in range(1999)}
KINDS = {
    "nothing but separators": (NARROW, b",\n", {}),
    "quotes that close on the next line": (NARROW, b'"\n', {}),
    "quotes that never close": (NARROW, b'a,"b\nc,d\n', {}),
    "fields too many": (NARROW, b"a,b,c\n", {}),
    "no UTF-8": (NARROW, b"a\xff,b\n", {}),
    "NUL bytes among good rows": (NARROW, b"a\0,b\ngood,1\n", {}),
    "every cell wrong": (WIDE, b"a" + b",x" * 1999 + b"\n", INTEGERS),
    "nothing in 2,000 columns": (WIDE, b"a" + b"," * 1999 + b"\n", {}),
    "lines too long": (NARROW, b"a," + b"x" * (MIB + 9) + b"\n", {}),
}

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
    header, line, columns = KINDS[kind]
    data, manifest, errors = (tmp_path / name for name in ("x.csv", "x.manifest", "errors.csv"))
    data.write_bytes(header + line * (SIZE // len(line)))
    text = {"type": "profile", "fileName": "x.csv", "clientEmail": "a@example.org", "columns": columns}
    manifest.write_text(json.dumps(text))
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, data, manifest, errors], capture_output=True, text=True, check=True
    )
    peak, _, verdict = said.stdout.partition(" ")
    counts = json.loads(verdict)["counts"]
    lines = SIZE // len(line) * line.count(b"\n")
    assert counts["read"] == counts["accepted"] + counts["rejected"] + counts["blank"] <= lines
    if counts["rejected"]:
        with errors.open(newline="") as file:
            assert sum(1 for _ in csv.reader(line.replace("\0", "") for line in file)) == counts["rejected"] + 1
        assert errors.stat().st_size < SENTENCES * data.stat().st_size
    assert int(peak) < MEMORY
