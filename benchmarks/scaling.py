"""First loads of profiles: how their time grows with the file, with the people stored, and shrinks with processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks import generate, loads
from benchmarks.fill import fill_profiles
from benchmarks.loads import Load
from benchmarks.service import PROCESSES, serving, warm_up, workshop
from ingestd.domain import ids
from ingestd.domain.ids import Prefix

EMPTY: Final = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A file of so many million bytes, data-plane processes, and other people whom the account has before."""

    mb: float
    processes: int = PROCESSES
    people: int = EMPTY

    def __str__(self) -> str:
        return f"{self.mb:g} MB, {self.processes} processes, {self.people:,} people before"


def cases(*, mb: Sequence[float], processes: Sequence[int], people: Sequence[int]) -> list[Case]:
    """Each size with the usual processes and an empty account; the first size with the others, one thing at a time."""
    found = [Case(each) for each in mb]
    found += [Case(mb[0], processes=each) for each in processes]
    found += [Case(mb[0], people=each) for each in people]
    return list(dict.fromkeys(found))


def measure(wanted: Sequence[Case], *, parent: Path | None) -> Iterator[Load]:
    """Load the file of each case into a new service."""
    for case in wanted:
        with workshop(parent) as folder:
            made = generate.profiles(folder / "first.csv", mb=case.mb)
            with serving(folder, processes=case.processes) as service:
                warm_up(service.url, case.mb)
                if case.people:
                    fill_profiles(service.url, ids.read(Prefix.ACCOUNT, service.account), case.people)
                measured = loads.load(service, "profiles", made, str(case), 1)
            yield replace(measured, work="scaling")
