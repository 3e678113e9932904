"""What holds whenever nothing is being done, whatever was broken before: one function for all fault tests."""

import csv
import hashlib
import io
import time
from itertools import pairwise

import psycopg
from psycopg.rows import namedtuple_row

from ingestd.ingest.work import LEAVE, SEGMENT, UNREPORTED, Checked
from ingestd.keyring import SealedKeys
from ingestd.store import orphans
from ingestd.store.engine import engine
from ingestd.store.files import IS_LIVE

SETTLED = 6  # seconds within which everything has come to its end


AT_REST = {"service": (60, 40, 300), "worker": (24, 24, 200)}
"""Open files, threads and megabytes that a process may hold while nothing is being done; far fewer than a loop has
rounds. Seen: 35 to 43, 23 to 29 and 165 to 178 by the service, 9 to 13, 6 to 19 and 85 to 114 by a worker."""

TASKS = 16  # of the service's event loop at rest; seen: 12


def check_invariants(ground, program=None):
    """Wait until nothing is being done, then assert what must hold.

    `ground` has the database, the blobs and the keys; `program` is the service, where it is a program of its own.
    """
    with psycopg.connect(ground.database_url, autocommit=True, row_factory=namedtuple_row) as sql:
        _everything_ends(sql)
        _files_are_their_blobs(ground, sql)
        _outcomes_agree(ground, sql)
        _accounts_are_in_order(sql)
        _notices_are_told(sql)
        _usage_is_what_is_kept(sql)
    if program is not None:
        _nothing_piles_up(program)


def _everything_ends(sql):
    """I10, I11: no ingestion, no workflow, no transaction and no lock stays open, and no constraint unchecked."""
    leader = "'SELECT pg_try_advisory_xact_lock%'"  # by which one DBOS of all does the chores; held while it lives
    open_things = f"""
        SELECT 'ingestion', id::text FROM ingestions WHERE status IN ('scheduled', 'in_progress')
        UNION ALL SELECT 'workflow', workflow_uuid FROM dbos.workflow_status WHERE status <> 'SUCCESS'
        UNION ALL SELECT 'transaction', query FROM pg_stat_activity
            WHERE xact_start < now() - interval '5 seconds' AND datname IS NOT NULL AND query NOT LIKE {leader}
        UNION ALL SELECT 'lock', query FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND query NOT LIKE {leader}
        UNION ALL SELECT 'constraint', conname FROM pg_constraint WHERE NOT convalidated
        UNION ALL SELECT 'index', indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid
    """
    deadline = time.monotonic() + SETTLED
    while found := sql.execute(open_things).fetchall():
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _files_are_their_blobs(ground, sql):
    """I1, I2, I8: every file is there with its hash, every error file that is named, and nothing else."""
    keys = {
        row.id: ground.keyring.open(row.id, SealedKeys(row.data_keys, row.index_key))
        for row in sql.execute("SELECT id, data_keys, index_key FROM accounts")
    }
    named = set()
    files = "SELECT account_id, blob, size_bytes, sha256 FROM files"
    manifests = "SELECT account_id, blob, size_bytes, sha256 FROM manifests WHERE blob IS NOT NULL"
    for row in sql.execute(f"{files} UNION ALL {manifests}"):
        with ground.blobs.open(row.blob, keys[row.account_id]) as stream:
            data = stream.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row.size_bytes, row.sha256)
        named.add(row.blob)
    for row in sql.execute("SELECT account_id, error_blob, rejects_blob, counts, warnings FROM ingestions"):
        if UNREPORTED not in row.warnings:
            assert (row.error_blob is None, row.rejects_blob is None) == (not row.counts["rejected"],) * 2
        if row.error_blob is not None:
            with ground.blobs.open(row.error_blob, keys[row.account_id]) as stream:
                rows = list(csv.reader(io.StringIO(stream.read().decode())))
            assert len(rows) == row.counts["rejected"] + 1
            named |= {row.error_blob, row.rejects_blob}
    _scratch_is_cleared(ground, named)
    _sweep_uploads(ground)
    stored = {each.name for each in ground.blobs.list()}
    assert {name for name in stored if not name.startswith("mails/")} == named
    assert {row.blob for row in sql.execute("SELECT blob FROM messages WHERE blob IS NOT NULL")} <= stored


def _scratch_is_cleared(ground, named):
    """Wait until of what ingestions wrote only the error files are left: that is removed after the end was told."""
    deadline = time.monotonic() + SETTLED
    while left := {stored.name for each in ("parts", "errors") for stored in ground.blobs.list(each)} - named:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _sweep_uploads(ground):
    """Remove the blobs of uploads whose row was never written, as the service does a day later."""
    sql = engine(ground.database_url)
    with sql.begin() as connection:
        names = [stored.name for stored in ground.blobs.list(orphans.UPLOADED)]
        ground.blobs.delete(orphans.without_row(connection, orphans.UPLOADED, names))
    sql.dispose()


def _outcomes_agree(ground, sql):
    """I3, I4: status, counts, ledger and notices say the same of every ingestion."""
    for row in sql.execute("SELECT * FROM ingestions").fetchall():
        counts, part = row.counts, {}
        ledger = sql.execute("SELECT part, counts FROM ledger WHERE ingestion_id = %s", [row.id]).fetchall()
        types = [n.type for n in sql.execute("SELECT type FROM notices WHERE subject_id = %s", [row.id])]
        assert counts["read"] == counts["accepted"] + counts["rejected"] + counts["blank"]
        walked = row.seq is not None  # a manifest that was refused is an ingestion that never began
        before = ["ingestion.scheduled", "ingestion.picked_up"] if walked else []
        assert sorted(types) == sorted([*before, f"ingestion.{row.status}"]), row.status
        assert (row.finished_at is not None, row.stage) == (True, "done")
        assert row.progress["percent"] == (100 if walked else 0)
        for entry in ledger:
            for name, count in entry.counts.items() if entry.part != SEGMENT else ():  # its members are told elsewhere
                part[name] = part.get(name, 0) + count
        lost = part.pop("lost", 0)
        if row.status == "completed":
            checked = Checked.model_validate(row.checked)
            units = {*checked.apart(), *checked.units()}
            assert {entry.part for entry in ledger} - {LEAVE, SEGMENT} == units
            assert {name: counts[name] for name in part} == part
            assert sum(counts.values()) - 2 * (counts["read"]) == sum(part.values())
            assert counts["rejected"] >= lost
        else:
            assert part == {}
            assert counts["accepted"] == 0
            assert row.error is not None


def _accounts_are_in_order(sql):
    """I6: an account's files were walked one after the other, in the order of their numbers."""
    walked = "SELECT account_id, started_at, finished_at FROM ingestions WHERE seq IS NOT NULL ORDER BY account_id, seq"
    rows = sql.execute(walked).fetchall()
    for before, after in pairwise(rows):
        if before.account_id == after.account_id:
            assert before.finished_at <= after.started_at


def _notices_are_told(sql):
    """I7: each notice reached its sink, or waits for its next attempt and is visible."""
    rows = sql.execute("SELECT state, attempts, next_attempt_at FROM deliveries").fetchall()
    assert all(row.state != "pending" or row.next_attempt_at is not None for row in rows)


def _usage_is_what_is_kept(sql):
    """I9: what counts against an account's quota is its files, and what uploads have reserved that did not end."""
    found = sql.execute(f"""
        SELECT account_id, kept, stored_bytes FROM usage FULL JOIN (
            SELECT account_id, sum(bytes) AS kept FROM (
                SELECT account_id, size_bytes AS bytes FROM files WHERE {IS_LIVE}
                UNION ALL SELECT account_id, reserved_bytes FROM reservations
            ) AS each GROUP BY account_id
        ) AS all_of USING (account_id) WHERE coalesce(kept, 0) <> coalesce(stored_bytes, 0)
    """).fetchall()
    assert found == []


def _nothing_piles_up(program):
    """I11: tasks, open files, threads and memory of the service and its workers are back to what they are at rest."""
    deadline = time.monotonic() + SETTLED
    while found := _more_than_at_rest(program):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _more_than_at_rest(program):
    held = [
        (kind, of_each)
        for kind, *of_each in program.holds()
        if any(has > most for has, most in zip(of_each, AT_REST[kind], strict=True))
    ]
    tasks = program.tasks()
    return held + [("tasks", tasks)] * (tasks > TASKS)
