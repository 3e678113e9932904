"""One program for the whole run, and a new account for each test that asks for one."""

import asyncio
import shutil
from collections import Counter

import pytest
import pytest_asyncio
from tests.faults.invariants import check_invariants
from tests.faults.program import Client, Program

from ingestd.store import embedded

TALLY = Counter()
"""How many faults struck, by what they struck and their kind."""


def pytest_terminal_summary(terminalreporter):
    """Say what was broken."""
    struck = {each: times for each, times in sorted(TALLY.items()) if times}
    for (what, kind), times in struck.items():
        terminalreporter.write_line(f"faults: {times:4} x {kind} at a {what}")
    if struck:
        places, kinds = ({each[at] for each in struck} for at in (0, 1))
        terminalreporter.write_line(
            f"faults: {sum(struck.values())} in all, of {len(kinds)} kinds at {len(places)} sorts of points"
        )


@pytest_asyncio.fixture(scope="session")
async def started(temporary_folder):
    """The program of the run; it goes on from test to test."""
    folder = temporary_folder()
    program = Program(folder)
    await program.start()
    yield program
    await program.kill()
    embedded.remove(folder / "data" / "postgres")
    shutil.rmtree(folder)


@pytest_asyncio.fixture
async def program(started):
    """The program, running; afterwards its faults are lifted and the invariants hold."""
    if started.process.returncode is not None:
        await started.start()
    yield started
    started.release()
    if started.process.returncode is None:
        with started.ground() as ground:
            await asyncio.to_thread(check_invariants, ground, started)


@pytest.fixture
def client(program, tmp_path):
    """A new account."""
    return Client(program, tmp_path)


@pytest.fixture
def other(program, tmp_path):
    """A second new account."""
    folder = tmp_path / "other"
    folder.mkdir()
    return Client(program, folder)
