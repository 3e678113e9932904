"""Append, replace and dry run of two sources against a plain model of what the documents say (S66, D16)."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.sources import CRMID, source
from tests.conftest import open_tenant

PEOPLE = ("p1", "p2", "p3", "p4")
NAMES = ("a", "b")
CELL = st.sampled_from(["", "1", "2"])
ROWS = st.dictionaries(st.sampled_from(PEOPLE), st.tuples(CELL, CELL), max_size=4)
STEP = st.tuples(st.sampled_from([0, 1]), st.sampled_from(["append", "replace"]), st.booleans(), st.booleans(), ROWS)
"""Which source, the mode, whether it is a dry run, whether the file has the column b, and its rows."""


@dataclass
class Model:
    """Values with the source that last changed each, and who is in which source."""

    values: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    members: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))

    def apply(self, number: int, mode: str, names: tuple[str, ...], rows: dict[str, tuple[str, str]]) -> None:
        for person, cells in rows.items():
            held = self.values.setdefault(person, {})
            for name, cell in zip(names, cells, strict=False):
                if cell and held.get(name, ("",))[0] != cell:
                    held[name] = cell, number
            self.members[number].add(person)
        if mode == "replace":
            for person in list(self.members[number]):
                kept = names if person in rows else ()
                held = self.values[person]
                for name in [name for name, (_, owner) in held.items() if owner == number and name not in kept]:
                    del held[name]
            self.members[number].intersection_update(rows)

    def shown(self) -> dict[str, dict[str, str]]:
        return {person: {name: cell for name, (cell, _) in held.items()} for person, held in self.values.items()}


async def stored(tenant, sources):
    body = {"identifiers": [{"kind": "crmid", "value": person} for person in PEOPLE]}
    found = (await tenant.http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()["data"]
    people = {each["value"]: each["profile"] for each in found if each["profile"]}
    names = {profile["id"]: person for person, profile in people.items()}
    members = []
    for each in sources:
        page = (await tenant.http.get(f"{each.path}/members")).raise_for_status().json()["data"]
        members.append({names[member["profile"]] for member in page})
    return {person: profile["attributes"] for person, profile in people.items()}, tuple(members)


async def step(tenant, each, asked, model, number):
    """Do one step and hold its counts against what happened; a replace that is held is confirmed."""
    mode, dry, with_b, rows = asked
    names = NAMES if with_b else NAMES[:1]
    await each.map(id="crmid", **{name: name for name in names})
    lines = ["\t".join(("id", *names)), *("\t".join((person, *cells[: len(names)])) for person, cells in rows.items())]
    file = ("\n".join(lines) + "\n").encode()
    answer = (await each.post(file, mode=mode, dry_run=dry)).raise_for_status().json()
    url = f"/v1/ingestions/{answer['id']}"
    while (shown := (await tenant.http.get(url)).json())["status"] not in {"completed", "failed"}:
        if shown["stage"] == "held":
            (await tenant.http.post(f"{url}/confirm")).raise_for_status()
        await asyncio.sleep(0.02)
    assert shown["status"] == "completed", shown
    left = model.members[number] - set(rows) if mode == "replace" else set()
    counts = shown["counts"]
    assert counts["removed"] == len(left)
    assert counts["created"] == len(set(rows) - set(model.values))
    assert counts["created"] + counts["updated"] + counts["unchanged"] == len(rows)
    if not dry:
        model.apply(number, mode, names, rows)


@pytest.mark.rule("S50", "S66", "D16")
async def test_two_sources_do_what_the_model_does(ground, app):
    loop = asyncio.get_running_loop()

    @settings(max_examples=4)
    @given(st.lists(STEP, min_size=1, max_size=3))
    def check(steps):
        asyncio.run_coroutine_threadsafe(walk(ground, app, steps), loop).result()

    await asyncio.to_thread(check)  # the service runs on this loop


async def walk(ground, app, steps):
    with tempfile.TemporaryDirectory() as folder:
        async with open_tenant(ground, app, Path(folder)) as tenant:
            await walk_as(tenant, steps)


async def walk_as(tenant, steps):
    sources = [await source(tenant, "one", id=CRMID, a={"name": "a"}, b={"name": "b"}), await source(tenant, "two")]
    model = Model()
    for number, *asked in steps:
        await step(tenant, sources[number], asked, model, number)
        people, members = await stored(tenant, sources)
        assert (people, members) == (model.shown(), model.members)
