"""How fast webhooks are told, and whether endpoints that are out of order hold up the others."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import time as time_of_day
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
import numpy as np
import psycopg

from benchmarks.endpoints import SILENT, SLOW, Arrival, Endpoints, endpoints
from benchmarks.machine import Measured, circumstances
from benchmarks.service import Service, serving, workshop
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest.accounts import new_account
from ingestd.keyring import Keyring, SealedKeys, master_from_file
from ingestd.notify.webhooks import new_secret, secret_context
from ingestd.store import engine as store
from ingestd.store.notices import Notice, adding
from ingestd.store.webhooks import Webhook

ENDPOINTS: Final = 20
SIDE_BY_SIDE: Final = 32
"""Requests at a time in the bare loop; as many as one process of the service has on their way."""

LOOK_SECONDS: Final = 0.2
_DATA: Final = {"id": "ing_01k9c3v0g8e5wr6q4x2n7m1hzt", "status": "completed", "counts": {"read": 100, "accepted": 100}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling(Measured):
    """Events for endpoints with an account each, all committed at once, until the sound ones have taken theirs.

    `variant` says whether one endpoint never answered and one took five seconds. Delays are from the commit to the
    first arrival, at the sound endpoints. `lost` are events of which neither an endpoint nor the outbox knows,
    `unexplained_repeats` those that came again although the answer to the first was 204.
    """

    deliveries: int
    seconds: float
    deliveries_per_s: float
    bare_per_s: float
    p50_ms: float
    p99_ms: float
    repeats: int
    unexplained_repeats: int
    lost: int


def measure(*, deliveries: int, parent: Path | None) -> Iterator[Telling]:
    """Tell as many events, first with sound endpoints only, then with two of them out of order."""
    with workshop(parent) as folder, serving(folder) as service:
        for variant, bad in (("sound", False), ("two out of order", True)):
            with endpoints(ENDPOINTS, bad=bad) as places:
                yield _tell(service, places, variant, deliveries // ENDPOINTS, bad=bad)


def _tell(service: Service, places: Endpoints, variant: str, each: int, *, bad: bool) -> Telling:
    on_what = circumstances(service.url)
    webhooks = _register(service, places.ports)
    sound = {webhook for number, webhook in enumerate(webhooks) if not bad or number not in {SILENT, SLOW}}
    began = _commit(service, webhooks, each)
    while _waiting(service, sound):
        time.sleep(LOOK_SECONDS)
    ended = time.time()
    came = places.arrivals()
    known = {arrival.event for arrival in came} | _kept(service, webhooks)
    first: dict[str, Arrival] = {}
    for arrival in came:
        first.setdefault(arrival.event, arrival)
    healthy = [arrival for arrival in first.values() if webhooks[arrival.endpoint] in sound]
    delays = [1000 * (arrival.at - began) for arrival in healthy]
    often = Counter(arrival.event for arrival in came)
    repeated = {event for event, times in often.items() if times > 1}
    taken = sum(arrival.status == 204 and webhooks[arrival.endpoint] in sound for arrival in came)
    return Telling(
        work="webhooks",
        variant=variant,
        mb=0,
        run=1,
        deliveries=each * len(webhooks),
        seconds=round(ended - began, 2),
        deliveries_per_s=round(taken / (max(arrival.at for arrival in healthy) - began)),
        bare_per_s=round(asyncio.run(_bare(places.ports[2:], taken))),
        p50_ms=round(float(np.percentile(delays, 50)), 1),
        p99_ms=round(float(np.percentile(delays, 99)), 1),
        repeats=len(repeated),
        unexplained_repeats=sum(first[event].status == 204 for event in repeated),
        lost=each * len(webhooks) - len(known),
        **on_what,
    )


def _register(service: Service, ports: Sequence[int]) -> list[UUID]:
    """Make an account with one webhook for each endpoint."""
    keyring, now = Keyring.load(master_from_file(service.data / "master.key")), store.utc_now()
    made = []
    with store.committing(service.url) as session:
        for port in ports:
            account = new_account(
                keyring, name="benchmark", time_zone="UTC", sync_time=time_of_day(2), features={}, email_domains=[],
                now=now,
            )  # fmt: skip
            keys, webhook_id = (
                keyring.open(account.id, SealedKeys(account.data_keys, account.index_key)),
                store.new_id(),
            )
            webhook = Webhook(
                id=webhook_id, account_id=account.id, name="benchmark", url=f"http://127.0.0.1:{port}/", enabled=True,
                secret=keys.seal_secret(secret_context(webhook_id), new_secret().encode()), created_at=now,
                updated_at=now,
            )  # fmt: skip
            session.add(account)
            session.flush()
            session.add(webhook)
            made.append(webhook_id)
    return made


def _commit(service: Service, webhooks: Sequence[UUID], each: int) -> float:
    """Write the same number of events for every webhook, in one transaction; when that was committed."""
    with store.committing(service.url) as session:
        owners = {webhook: session.get_one(Webhook, webhook).account_id for webhook in webhooks}
        for _ in range(each):
            for webhook in webhooks:
                notice = Notice(
                    id=store.new_id(), account_id=owners[webhook], type="ingestion.completed", subject_id=None,
                    data=_DATA, created_at=store.utc_now(),
                )  # fmt: skip
                session.execute(adding(notice))
    return time.time()


def _waiting(service: Service, webhooks: set[UUID]) -> int:
    with psycopg.connect(service.url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM deliveries WHERE webhook_id = ANY (%s) AND state <> 'delivered'", [list(webhooks)]
        )
        return int(found.fetchall()[0][0])


def _kept(service: Service, webhooks: Sequence[UUID]) -> set[str]:
    """The events that the outbox has still to tell."""
    with psycopg.connect(service.url) as connection:
        found = connection.execute(
            "SELECT notice_id FROM deliveries WHERE webhook_id = ANY (%s) AND state IN ('pending', 'sending')",
            [list(webhooks)],
        )
        return {ids.show(Prefix.MESSAGE, notice) for (notice,) in found}


async def _bare(ports: Sequence[int], count: int) -> float:
    """Requests a second of a loop that does nothing but post, on a new connection each time, as to strangers."""
    content, left = json.dumps(_DATA).encode(), iter(range(count))

    async def post(http: httpx.AsyncClient) -> None:
        for number in left:
            (await http.post(f"http://127.0.0.1:{ports[number % len(ports)]}/", content=content)).raise_for_status()

    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, limits=limits) as http, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        tasks = [group.create_task(post(http)) for _ in range(SIDE_BY_SIDE)]
        await asyncio.wait(tasks)
    return count / (time.perf_counter() - began)
