"""Whatever clients do, in whatever order, while the service is killed or its database lost: a plain model foretells it.

Hypothesis chooses the steps: put, rename, manifest, the same manifest again, cancel, erase, kill, loss of the database.
"""

import asyncio
import json
from dataclasses import dataclass, field, replace

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.faults.conftest import TALLY
from tests.faults.program import Client
from tests.faults.test_database import CUT_ALL
from tests.thorough import examples

pytestmark = [pytest.mark.fault, pytest.mark.loop, pytest.mark.timeout(3600)]

NAMES = st.sampled_from(["x", "y"])
PEOPLE = ("ann", "bob", "eve")
STEPS = hypothesis.settings(
    max_examples=examples(4),
    stateful_step_count=12,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


@dataclass
class Upload:
    """A song for some people, and how many erasures came before it."""

    song: str
    people: frozenset
    erasures: int


@dataclass
class Model:
    """What ought to be: uploads that wait, by name, oldest first; what each manifest came to; who was erased."""

    waiting: dict = field(default_factory=dict)
    submitted: list = field(default_factory=list)
    erased: list = field(default_factory=list)

    def songs(self, person):
        """The songs of a person: of the files that were neither cancelled nor older than an erasure of the person."""
        forgotten = max((n for n, each in enumerate(self.erased, 1) if each == person), default=0)
        return [
            upload.song
            for status, upload in self.submitted
            if status == "completed" and person in upload.people and upload.erasures >= forgotten
        ]


class Machine(RuleBasedStateMachine):
    """The service and the model, side by side; each example is an account of its own."""

    program = loop = folder = None

    def wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    @initialize()
    def begin(self):
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        self.client, self.model, self.steps, self.last = Client(self.program, folder), Model(), 0, None

    def ask(self, ask, *args):
        self.steps += 1
        return self.wait(self.client.survive(ask, *args))

    @rule(name=NAMES, people=st.frozensets(st.sampled_from(PEOPLE), min_size=1))
    def put(self, name, people):
        upload = Upload(f"song-{self.steps}", people, len(self.model.erased))
        rows = "".join(f"{person},{upload.song},$add\n" for person in sorted(people))
        self.ask(self.client.put, f"{name}.csv", f"identity,Playlist,Playlist.operation\n{rows}".encode())
        self.model.waiting.setdefault(name, []).append(upload)

    @precondition(lambda self: self.model.waiting.get("x") and not self.model.waiting.get("y"))
    @rule()
    def rename(self):
        self.wait(rename(self.client, "/x.csv", "/y.csv"))
        upload = self.model.waiting.pop("x")[-1]  # the older ones are superseded
        self.model.waiting["y"] = [replace(upload, erasures=len(self.model.erased))]  # it counts as received now

    @rule(name=NAMES)
    def submit(self, name):
        text = {"fileName": f"{name}.csv", "type": "profile", "clientEmail": "data@example.org"}
        self.last = f"{self.steps}.manifest", json.dumps(text).encode(), name
        self.ask(self.client.put, *self.last[:2])
        found = self.model.waiting.pop(name, [])
        self.model.submitted.append(("completed", found[-1]) if found else ("failed", None))

    @precondition(lambda self: self.last and not self.model.waiting.get(self.last[2]))
    @rule()
    def submit_again(self):
        self.ask(self.client.put, *self.last[:2])

    @precondition(lambda self: self.model.submitted and self.model.submitted[-1][1])
    @rule()
    def cancel(self):
        if self.ask(cancel, self.client):
            self.model.submitted[-1] = ("cancelled", self.model.submitted[-1][1])

    @precondition(lambda self: self.model.submitted)
    @rule(person=st.sampled_from(PEOPLE))
    def erase(self, person):
        self.ask(self.client.ended)
        assert self.ask(erase, self.client, person) == bool(self.model.songs(person))
        self.model.erased.append(person)

    @rule()
    def kill(self):
        self.wait(self.program.kill())
        self.wait(self.program.start())
        TALLY["step of the machine", "die"] += 1

    @rule()
    def lose_the_database(self):
        with self.program.sql() as sql:
            sql.execute(CUT_ALL)
        TALLY["step of the machine", "cut"] += 1

    def teardown(self):
        if not self.model.submitted:
            return
        ended = self.ask(self.client.ended)
        assert [each["status"] for each in ended] == [status for status, _ in self.model.submitted]
        for person in PEOPLE:
            assert (self.ask(self.client.playlist, person) or []) == self.model.songs(person)


async def test_whatever_happens_a_plain_model_foretells_what_comes_of_it(program, tmp_path):
    Machine.program, Machine.loop, Machine.folder = program, asyncio.get_running_loop(), tmp_path
    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=STEPS)


async def rename(client, old, new):
    """Rename an upload."""
    async with client.sftp() as sftp:
        await sftp.rename(old, new)


async def cancel(client):
    """Cancel the newest ingestion; tells whether it is cancelled."""
    async with client.http() as http:
        (newest,) = (await http.get("/v1/ingestions", params={"limit": 1})).raise_for_status().json()["data"]
        await http.post(f"/v1/ingestions/{newest['id']}/cancel")
        shown = (await http.get(f"/v1/ingestions/{newest['id']}")).raise_for_status().json()
        return shown["status"] == "cancelled"


async def erase(client, person):
    """Erase a person; tells whether there was one."""
    async with client.http() as http:
        body = {"identifiers": [{"kind": "identity", "value": person}]}
        found = (await http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()["data"][0]["profile"]
        if found:
            (await http.delete(f"/v1/profiles/{found['id']}")).raise_for_status()
        return found is not None
