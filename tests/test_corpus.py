"""Every bad input of the corpus, through each door of one running service: its documented outcome, and nothing else."""

import asyncio
import csv
import io
import json
import shutil
from contextlib import AsyncExitStack
from types import SimpleNamespace

import psycopg
import pytest
import pytest_asyncio
from tests.conftest import Tenant, open_tenant
from tests.corpus import CANARY, CORPUS, INCORRECT, NO_FILE, Item, lines
from tests.faults.invariants import check_invariants
from tests.faults.program import Program

from ingestd.cli.check import examine
from ingestd.store import embedded

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

AT_THE_DOOR = (INCORRECT, NO_FILE)
"""What HTTP answers at once with a problem, where SFTP can only tell it as an ingestion that has failed."""
AN_ANSWER = (400, 404, 409, 413, 422)
ONLY_THE_SERVICE_KNOWS = (NO_FILE, "recipient_unknown")
LAST = Item(name="the good file after all", data=lines("identity,x", "last,1"), accepted=1, people={"last": {"x": "1"}})
ITEMS = {f"c{number:03}": item for number, item in enumerate([*CORPUS, LAST])}


@pytest_asyncio.fixture(scope="module")
async def program(temporary_folder):
    """A service of the corpus' own, so that its invariants are those of this file."""
    folder = temporary_folder()
    program = Program(folder)
    del program.environment["INGESTD_WORKER__PART_BYTES"]
    await program.start()
    yield program
    await program.kill()
    embedded.remove(folder / "data" / "postgres")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ground(program):
    with program.ground() as opened:
        yield opened


@pytest.fixture(scope="module")
def app(program):
    """Where its doors are."""
    known = (program.folder / "data" / "known_hosts").read_text().splitlines()
    keys = [line.partition(" ")[2] for line in known]
    return SimpleNamespace(
        http_url=program.url, sftp=SimpleNamespace(host=program.host, port=program.port, host_keys=keys)
    )


@pytest_asyncio.fixture
async def tenants(ground, app, tmp_path):
    """An account for each door."""
    async with AsyncExitStack() as stack:
        folders = [tmp_path / door.__name__ for door in DOORS]
        for folder in folders:
            folder.mkdir()
        yield [await stack.enter_async_context(open_tenant(ground, app, folder)) for folder in folders]


async def by_sftp(tenant: Tenant) -> dict[str, int]:
    """Put every item; nothing is refused at this door, it all becomes an ingestion."""
    async with tenant.sftp() as client:
        for stem, item in ITEMS.items():
            for name, data in ((f"{stem}.csv", item.data), (f"{stem}.manifest", item.text(f"{stem}.csv"))):
                async with client.open(f"/{name}", "wb") as file:
                    await file.write(data)
    return {}


async def by_http(tenant: Tenant) -> dict[str, int]:
    """Put every item; gives the status of each manifest that was refused, of which nothing stays."""
    refused = {}
    for stem, item in ITEMS.items():
        (await tenant.http.put(f"/v1/files/{stem}.csv", content=item.data)).raise_for_status()
        body = b'{"name": "%s.manifest", "content": %s}' % (stem.encode(), item.text(f"{stem}.csv"))
        headers = {"Content-Type": "application/json"}
        answer = await tenant.http.post("/v1/manifests", params={"submit": True}, content=body, headers=headers)
        if answer.is_error:
            assert answer.json()["code"]
            refused[stem] = answer.status_code
    return refused


DOORS = (by_sftp, by_http)


@pytest.mark.rule("S76", "S86", "S89", "S108", "S110", "S115", "S120", "S124", "S125", "S126", "S127", "S128", "S143")
@pytest.mark.rule("D42", "D43", "D44", "D45", "D46", "D47")
@pytest.mark.threat("T70", "T71", "T72", "T73", "T74", "T75", "T76", "T77", "T78", "T79", "T80")
@pytest.mark.threat("T90", "T91", "T92", "T93", "T94", "T96", "T100", "T102", "T103", "T104", "T118")
async def test_every_bad_input_has_its_documented_outcome_through_each_door(ground, tenants, tmp_path):
    found = await asyncio.gather(
        *(differences(door, tenant, tmp_path) for door, tenant in zip(DOORS, tenants, strict=True))
    )
    assert not any(found), "\n".join(each[:1000] for some in found for each in some)
    await asyncio.to_thread(check_invariants, ground)
    assert leaks(ground) == []


async def differences(door, tenant: Tenant, folder) -> list[str]:
    """What became of the items otherwise than is meant, through one door."""
    refused = await door(tenant)
    shown = await everything_ended(tenant)
    different = {}
    for stem, item in ITEMS.items():
        if stem in refused:
            if item.error not in AT_THE_DOOR or refused[stem] not in AN_ANSWER or f"{stem}.manifest" in shown:
                different[item.name] = {"refused": refused[stem]}
            continue
        ended = shown[f"{stem}.manifest"]
        errors = await tenant.error_file(ended) if ended["error_file"] else None
        found = seen(item, ended, errors) | {"stored": await stored(tenant, item)}
        expected = meant(item)
        of_it = {word: (found[word], expected[word]) for word in expected if found[word] != expected[word]}
        if door is by_sftp:  # once is enough: where it takes an item at all, the other door's outcome is the same
            of_it |= offline(item, stem, ended, errors, folder)
        if of_it:
            different[item.name] = of_it
    return [f"{door.__name__} {name}: {each}" for name, each in different.items()]


def meant(item: Item) -> dict[str, object]:
    """What the corpus says of an item."""
    rejected = len(item.failures)
    return {
        "status": "failed" if item.error else "completed",
        "error": item.error,
        "says": True,
        "accepted": item.accepted,
        "rejected": rejected,
        "blank": item.blank,
        "read": item.accepted + rejected + item.blank,
        "failures": [True] * rejected,
        "warning": True,
        "error_rows": [list(row) for row in item.error_rows],
        "stored": (dict(item.people), {who: list(done) for who, done in item.events.items()}),
    }


def seen(item: Item, ended: dict[str, object], errors: str | None) -> dict[str, object]:
    """The same, of what became of it."""
    rows = list(csv.reader(io.StringIO(errors or "", newline="")))[1:]
    error, counts = ended["error"], ended["counts"]
    detail = error and error["detail"] + "".join(problem["detail"] for problem in error["problems"])
    failures = [row[-1].startswith(words) for row, words in zip(rows, item.failures, strict=False)]
    return {
        "status": ended["status"],
        "error": error and error["code"],
        "says": item.says in detail and bool(error["remedy"]) if error else True,
        **{word: counts[word] for word in ("accepted", "rejected", "blank", "read")},
        "failures": failures if len(rows) == len(item.failures) else rows,
        "warning": item.warning is None or item.warning in ended["warnings"] or ended["warnings"],
        "error_rows": [row[:-1] for row in rows] if item.error_rows else [],
    }


async def stored(tenant: Tenant, item: Item) -> tuple[dict[str, object], dict[str, object]]:
    people = {who: profile and profile["attributes"] for who in item.people if (profile := await tenant.profile(who))}
    events = {who: [(each["name"], each["properties"]) for each in await tenant.events(who)] for who in item.events}
    return people, events


def offline(item: Item, stem: str, ended: dict[str, object], errors: str | None, folder) -> dict[str, object]:
    """What `ingestd check` says otherwise than the service did."""
    error = ended["error"]
    if error and {error["code"], *(problem["code"] for problem in error["problems"])} & {*ONLY_THE_SERVICE_KNOWS}:
        return {}
    data, manifest, rejected = folder / f"{stem}.csv", folder / f"{stem}.manifest", folder / "rejected.csv"
    data.write_bytes(item.data)
    manifest.write_bytes(item.text(data.name))
    said = json.loads(examine(data, manifest, rejected, lambda *_: None).model_dump_json())
    data.unlink()
    rows = ("read", "accepted", "rejected", "blank")
    ours = [said["status"], said["error"], [said["counts"][word] for word in rows], said["warnings"]]
    theirs = [ended["status"], error, [ended["counts"][word] for word in rows], ended["warnings"]]
    different = {} if ours == theirs else {"check says": (ours, theirs)}
    written = rejected.read_bytes() if rejected.exists() else None
    return different if written == (errors and errors.encode()) else different | {"check writes": (written, errors)}


async def everything_ended(tenant: Tenant) -> dict[str, dict[str, object]]:
    """The ingestions by the names of their manifests, once all have ended."""
    async with asyncio.timeout(600):
        while True:
            page = (await tenant.http.get("/v1/ingestions", params={"limit": 200})).raise_for_status().json()
            if all(each["finished_at"] for each in page["data"]):
                assert page["next_cursor"] is None
                return {each["manifest"]["name"]: each for each in page["data"]}
            await asyncio.sleep(0.2)


def leaks(ground) -> list[str]:
    """The tables, apart from those of people and events, in which a cell's value stands."""
    tables = """
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('public', 'dbos') AND tablename !~ '^(profile|event)'
    """
    with psycopg.connect(ground.database_url) as sql:
        names = [name for (name,) in sql.execute(tables)]
        assert "public.notices" in names
        query = "SELECT EXISTS (SELECT FROM {} AS t WHERE t::text LIKE %s)"
        return [name for name in names if sql.execute(query.format(name), [f"%{CANARY}%"]).fetchone() == (True,)]
