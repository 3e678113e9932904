"""The dispatcher: at once, in time, fair to all, and never twice at a time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from tests.notify.receiver import Receivers, Request, reply
from tests.notify.world import World

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.notify import outbox as dispatching
from ingestd.notify import webhooks as sending
from ingestd.notify.outbox import SPREAD, WAITS, Outbox, next_attempt_at
from ingestd.notify.posting import Posting
from ingestd.notify.webhooks import Code, Sender
from ingestd.store import deliveries
from ingestd.store import webhooks as endpoints
from ingestd.store.deliveries import Claimed
from ingestd.store.engine import transaction
from ingestd.store.outgoing import Ended
from ingestd.store.webhooks import Webhook

TICK = timedelta(microseconds=1)


@asynccontextmanager
async def running(*outboxes: Outbox) -> AsyncIterator[None]:
    """Run dispatchers meanwhile; at the end they stop, with nothing left half done."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for outbox in outboxes:
            group.create_task(outbox.run(stop))
        try:
            yield
        finally:
            stop.set()


class Gate:
    """An answer that comes when the gate is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        await reply(204)(request, writer)

    def open(self) -> None:
        self._open.set()


async def test_a_notice_leaves_when_its_transaction_commits(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    await world.webhook(account, receiver.url)
    async with running(world.outbox()):
        await world.tell(account)
        await receiver.arrivals.get()
        await world.tell(account, id="ing_1")
        committed = time.monotonic()
        request = await receiver.arrivals.get()
        assert time.monotonic() - committed < 20, "it waited for the next look, which is a minute away"
    assert json.loads(request.body)["data"] == {"id": "ing_1"}
    assert {each.state for each in await world.deliveries()} == {"delivered"}


async def test_a_retry_leaves_when_its_time_has_come(
    world: World, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatching, "WAITS", [timedelta(seconds=0.05)] * 3)
    receiver, account = await receivers(reply(500)), await world.account()
    await world.webhook(account, receiver.url)
    world.clock = lambda: datetime.now(UTC)
    async with running(world.outbox()):
        await world.tell(account)
        await receiver.arrivals.get()
        receiver.answer = reply(204)
        await receiver.arrivals.get()
    (delivery,) = await world.deliveries()
    first, second = (datetime.fromisoformat(each["at"]) for each in delivery.attempts)
    assert timedelta(seconds=0.05) <= second - first < timedelta(seconds=20)
    assert [each["code"] for each in delivery.attempts] == ["http_5xx", "delivered"]


async def test_what_fails_is_tried_ten_times_under_one_id_and_then_given_up(world: World, receivers: Receivers):
    receiver, account = await receivers(reply(500)), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    for wait in WAITS:
        world.clock.move(wait - TICK)
        assert await world.send_due() == 0
        world.clock.move(TICK)
        assert await world.send_due() == 1
    world.clock.move(timedelta(days=30))
    assert await world.send_due() == 0
    (delivery,) = await world.deliveries()
    assert (delivery.state, delivery.failures, delivery.next_attempt_at) == ("dead", 10, None)
    assert {(each["code"], each["status"]) for each in delivery.attempts} == {("http_5xx", 500)}
    assert len(delivery.attempts) == len(receiver.requests) == 10
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len({request.headers["webhook-timestamp"] for request in receiver.requests}) == 10
    assert len({request.body for request in receiver.requests}) == 1


def test_the_schedule_lasts_three_days():
    assert sum(WAITS, timedelta(0)) > timedelta(days=3)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 9), st.floats(0, 1), st.none() | st.timedeltas(timedelta(0), timedelta(days=1)))
def test_the_wait_is_the_schedules_lengthened_by_chance_or_what_the_receiver_asked_for(
    failures: int, jitter: float, asked: timedelta | None
):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    at = next_attempt_at(failures, now=now, jitter=jitter, retry_after=asked)
    least, asked = WAITS[failures], asked or timedelta(0)
    assert at is not None
    assert max(least, asked) <= at - now <= max(least * (1 + SPREAD) + TICK, asked)


async def test_retry_after_puts_the_next_attempt_off(world: World, receivers: Receivers):
    receiver, account = await receivers(reply(429, "Retry-After: 3600")), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    await world.send_due()
    world.clock.move(timedelta(hours=1) - TICK)
    assert await world.send_due() == 0
    world.clock.move(TICK)
    assert await world.send_due() == 1


async def test_410_disables_the_webhook_and_what_waits_for_it_dies_unsent(world: World, receivers: Receivers):
    receiver, account = await receivers(reply(500)), await world.account()
    webhook = await world.webhook(account, receiver.url)
    await world.tell(account)
    await world.send_due()
    receiver.answer = reply(410)
    await world.tell(account)
    await world.send_due()
    found = await world.again(webhook)
    assert (found.enabled, found.disabled_reason) == (False, "gone")
    world.clock.move(WAITS[1])
    await world.send_due()
    assert [(each.state, each.attempts[-1]["code"]) for each in await world.deliveries()] == [
        ("dead", "disabled"),
        ("dead", "http_4xx"),
    ]
    assert len(receiver.requests) == 2
    await world.tell(account)
    assert len(await world.deliveries()) == 2, "a disabled webhook is told nothing new"


@pytest.mark.rule("S136")
async def test_that_a_webhook_was_disabled_is_told_to_the_others_and_mailed(world: World, receivers: Receivers):
    gone, other, account = await receivers(reply(410)), await receivers(), await world.account()
    webhook = await world.webhook(account, gone.url, events=["ingestion.completed"])
    await world.webhook(account, other.url, events=["webhook.disabled"])
    await world.recipient(account, "ann@example.org", ["attention"])
    await world.tell(account)
    await world.send_due()
    await world.send_due()
    (request,) = other.requests
    told = json.loads(request.body)
    assert told["type"] == "webhook.disabled"
    assert told["data"]["id"] == ids.show(Prefix.WEBHOOK, webhook.id)
    assert (told["data"]["name"], told["data"]["disabled_reason"]) == ("a webhook", "gone")
    assert [message.address for message in await world.messages()] == ["ann@example.org"]
    assert await world.send_due() == 0


async def test_five_days_without_success_disable_the_webhook(world: World, receivers: Receivers):
    receiver, account = await receivers(reply(500)), await world.account()
    webhook = await world.webhook(account, receiver.url)
    for day in range(10):
        receiver.answer = reply(204 if day == 4 else 500)
        await world.tell(account)
        await world.send_due()
        assert (await world.again(webhook)).enabled
        world.clock.move(timedelta(days=1))
    assert (await world.again(webhook)).failing_since == world.clock() - timedelta(days=5)
    await world.send_due()
    found = await world.again(webhook)
    assert (found.enabled, found.disabled_reason) == (False, "failing")


@pytest.mark.fault
@pytest.mark.rule("S136")
async def test_five_days_of_refusal_are_borne_within_their_bounds_then_disabled_then_recovered(
    world: World, receivers: Receivers
):
    """Two events a day, each tried within the bounds of its waits; then nothing until the webhook is enabled."""
    receiver, account, chance = await receivers(reply(503)), await world.account(), random.Random(7)
    webhook = await world.webhook(account, receiver.url)
    began, half_a_day = world.clock(), timedelta(hours=12)
    while (await world.again(webhook)).enabled:
        await world.tell(account)
        until = world.clock() + half_a_day
        while world.clock() < until:
            world.jitter = chance.random()
            while await world.send_due():
                world.jitter = chance.random()
            due = min(
                (each.next_attempt_at for each in await world.deliveries() if each.next_attempt_at), default=until
            )
            world.clock.move(max(TICK, min(due, until) - world.clock()))
    assert timedelta(days=5) <= world.clock() - began <= timedelta(days=5) + half_a_day
    for delivery in await world.deliveries():
        times = [datetime.fromisoformat(each["at"]) for each in delivery.attempts if each["code"] == "http_5xx"]
        for number, (earlier, later) in enumerate(pairwise(times), start=1):
            assert WAITS[number] <= later - earlier <= WAITS[number] * (1 + SPREAD) + TICK
    attempts = len(receiver.requests)
    receiver.answer = reply(204)
    assert (await world.again(webhook)).disabled_reason == "failing"
    world.clock.move(timedelta(days=3))
    while await world.send_due():
        pass
    assert len(receiver.requests) == attempts
    async with transaction(world.sessions) as session:
        enabled = await endpoints.get(session, account, webhook.id, lock=True)
        enabled.enable()
        await session.flush()
        count = await deliveries.recover(session, enabled, since=began, now=world.clock())
    while await world.send_due():
        pass
    assert count == len(await world.deliveries()) >= 10
    assert {each.state for each in await world.deliveries()} == {"delivered"}


async def test_a_crash_after_the_post_sends_it_again_under_the_same_id(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    (claimed,) = await world.claim()
    await world.posting()._send(claimed)
    world.clock.move(deliveries.LEASE - TICK)
    assert await world.send_due() == 0, "the lease still stands"
    world.clock.move(TICK)
    assert await world.send_due() == 1
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    (delivery,) = await world.deliveries()
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)


@pytest.mark.fault
async def test_whoever_comes_back_after_the_lease_marks_nothing(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    (late,) = await world.claim()
    world.clock.move(deliveries.LEASE)
    (present,) = await world.claim()
    await world.deliver(world.posting(), [late])
    (delivery,) = await world.deliveries()
    assert (delivery.state, delivery.attempts) == ("sending", [])
    await world.deliver(world.posting(), [present])
    (delivery,) = await world.deliveries()
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)


@pytest.mark.threat("T14")
async def test_two_dispatchers_share_the_work_and_keep_the_limit(world: World, receivers: Receivers):
    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):  # so that others could come in between
            await asyncio.sleep(0)
        await reply(204)(request, writer)

    account, endpoints = await world.account(), [await receivers(slowly) for _ in range(4)]
    for endpoint in endpoints:
        await world.webhook(account, endpoint.url)
    for _ in range(10):
        await world.tell(account)
    async with running(world.outbox(), world.outbox()):
        for endpoint in endpoints:
            for _ in range(10):
                await endpoint.arrivals.get()
    for endpoint in endpoints:
        assert set(Counter(each.headers["webhook-id"] for each in endpoint.requests).values()) == {1}
        assert endpoint.most_under_way <= deliveries.PER_WEBHOOK
    assert Counter(each.state for each in await world.deliveries()) == {"delivered": 40}


@pytest.mark.threat("T14")
async def test_a_dead_endpoint_holds_nobody_up(world: World, receivers: Receivers):
    gate = Gate()
    account, dead, live = await world.account(), await receivers(gate), await receivers()
    await world.webhook(account, dead.url)
    for _ in range(40):
        await world.tell(account)
    await world.webhook(account, live.url)
    async with running(world.outbox()):
        await dead.arrivals.get()
        for _ in range(10):
            await world.tell(account)
            await live.arrivals.get()
        assert dead.under_way <= deliveries.PER_WEBHOOK
        gate.open()
        for _ in range(49):
            await dead.arrivals.get()
    assert dead.most_under_way == deliveries.PER_WEBHOOK
    assert Counter(each.state for each in await world.deliveries()) == {"delivered": 60}


@pytest.mark.threat("T14")
async def test_an_account_with_many_dead_endpoints_holds_no_other_account_up(world: World, receivers: Receivers):
    gate = Gate()
    dead, live = await receivers(gate), await receivers()
    many, one = await world.account(), await world.account()
    for _ in range(40):
        await world.webhook(many, dead.url)
    await world.webhook(one, live.url)
    await world.tell(many)
    async with running(world.outbox(), world.outbox()):
        await dead.arrivals.get()
        for _ in range(5):
            await world.tell(one)
            await live.arrivals.get()
        gate.open()
        for _ in range(39):
            await dead.arrivals.get()
    assert dead.most_under_way == deliveries.PER_ACCOUNT


@pytest.mark.fault
async def test_a_lost_connection_is_made_again(world: World, receivers: Receivers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dispatching, "CALM_SECONDS", 0.01)
    receiver, account = await receivers(), await world.account()
    await world.webhook(account, receiver.url)
    async with running(world.outbox()):
        for _ in range(3):
            await world.tell(account)
            await receiver.arrivals.get()
            async with world.sessions() as session:
                ended = await session.scalars(
                    text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                )
                assert set(ended) <= {True}
        await world.tell(account)
        await receiver.arrivals.get()


@pytest.mark.fault
async def test_a_database_that_is_away_is_waited_for(
    world: World, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatching, "CALM_SECONDS", 0.01)
    receiver, account, failures = await receivers(), await world.account(), iter(range(3))
    await world.webhook(account, receiver.url)
    await world.tell(account)
    outbox, sessions = world.outbox(), world.sessions

    def away_at_first() -> AsyncSession:
        if next(failures, None) is not None:
            raise OSError("The database is away.")
        return sessions()

    outbox.sessions = away_at_first
    async with running(outbox):
        await receiver.arrivals.get()
    assert next(failures, None) is None


@pytest.mark.fault
async def test_what_ends_while_the_database_is_away_is_marked_when_it_is_back_and_not_sent_again(
    world: World, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatching, "CALM_SECONDS", 0.01)
    gate, failures, back = Gate(), iter(range(3)), asyncio.Event()
    receiver, account = await receivers(gate), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    outbox, sessions = world.outbox(), world.sessions

    def away_for_a_while() -> AsyncSession:
        if next(failures, None) is not None:
            raise OSError("The database is away.")
        back.set()
        return sessions()

    async with running(outbox):
        await receiver.arrivals.get()
        outbox.sessions = away_for_a_while
        gate.open()
        await back.wait()
    assert [(each.state, len(each.attempts)) for each in await world.deliveries()] == [("delivered", 1)]
    assert len(receiver.requests) == 1


async def test_when_all_that_is_on_its_way_ends_just_before_a_turn_that_turn_marks_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatching, "GATHER_SECONDS", 0)  # one step of the loop, in which everything is sent
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 3600.0)
    told = asyncio.Event()

    @dataclass(kw_only=True)
    class AtOnce(Posting):
        async def claim(self, session: AsyncSession, *, room: int, now: datetime) -> Sequence[Claimed]:
            outbox._wake.set()  # as by another notice
            found = await super().claim(session, room=room, now=now)
            if not found:
                told.set()
            return found

        async def send(self, claimed: Claimed) -> Ended[Claimed]:
            return Ended(claimed, {"code": Code.DELIVERED}, delivered=True, again_at=None)

    account = await world.account()
    await world.webhook(account, "http://127.0.0.1/")
    for _ in range(3):
        await world.tell(account)
    outbox = replace(world.outbox(), channel=AtOnce(**vars(world.posting()) | {"slots": 1}))
    async with running(outbox):
        await told.wait()
    assert Counter(each.state for each in await world.deliveries()) == {"delivered": 3}


async def test_stopping_waits_for_what_is_on_its_way(world: World, receivers: Receivers):
    gate, stop = Gate(), asyncio.Event()
    receiver, account = await receivers(gate), await world.account()
    await world.webhook(account, receiver.url)
    await world.tell(account)
    run = asyncio.create_task(world.outbox().run(stop))
    await receiver.arrivals.get()
    stop.set()
    await world.tell(account)
    assert not run.done()
    gate.open()
    await run
    assert [each.state for each in await world.deliveries()] == ["delivered", "pending"]


async def test_a_secret_that_was_replaced_signs_too_until_its_time_is_over(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    old, new = sending.new_secret(), sending.new_secret()
    webhook = await world.webhook(account, receiver.url, old)
    async with transaction(world.sessions) as session:
        found = await session.merge(webhook)
        found.rotate(world.seal(account, webhook.id, new), until=world.clock() + timedelta(seconds=10))
    for _ in range(2):
        await world.tell(account)
        await world.send_due()
        world.clock.move(timedelta(seconds=10))
    during, after = receiver.requests
    for secret in (old, new):
        Verifier(secret).verify(during.body, during.headers)
    Verifier(new).verify(after.body, after.headers)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Verifier(old).verify(after.body, after.headers)


@pytest.mark.threat("T2", "T4")
async def test_a_denied_address_is_a_blocked_attempt_and_checked_again(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    await world.webhook(account, receiver.url)
    allowed, world.sender = world.sender, Sender()
    await world.tell(account)
    await world.send_due()
    assert receiver.connections == 0
    world.sender = allowed
    world.clock.move(WAITS[1])
    await world.send_due()
    (delivery,) = await world.deliveries()
    assert [each["code"] for each in delivery.attempts] == ["blocked", "delivered"]


@pytest.mark.threat("T112")
async def test_a_secret_of_another_webhook_does_not_sign(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    other = await world.webhook(account, receiver.url, events=[])
    webhook = await world.webhook(account, receiver.url)
    async with transaction(world.sessions) as session:
        (await session.merge(webhook)).secret = other.secret
    await world.tell(account)
    await world.send_due()
    (delivery,) = await world.deliveries()
    assert (delivery.state, delivery.attempts[0]["code"]) == ("pending", "internal")
    assert receiver.connections == 0
    assert (await world.again(webhook)).failing_since is None, "the fault is ours"


@pytest.mark.threat("T11", "T102")
async def test_nothing_of_the_answer_or_the_secret_is_kept(
    world: World, receivers: Receivers, caplog: pytest.LogCaptureFixture
):
    receiver, account = await receivers(reply(500, "X-Note: canary-1", body=b"canary-2")), await world.account()
    await world.webhook(account, receiver.url + "&token=canary-3", "whsec_Y2FuYXJ5LTQtc2VjcmV0LW9mLTI0LWJ5dGVz")
    await world.tell(account)
    with caplog.at_level("INFO", "ingestd"):
        await world.send_due()
    async with world.sessions() as session:
        kept = await session.scalar(text("SELECT string_agg(d::text, '') FROM deliveries d"))
        sealed = await session.scalar(text("SELECT string_agg(w.secret::text, '') FROM webhooks w"))
    assert len(caplog.records) > 0
    assert len(receiver.requests) == 1
    for canary in ("canary", "Y2FuYXJ5", b"whsec_".hex()):
        assert canary not in kept + sealed + caplog.text


@pytest.mark.rule("S136")
@pytest.mark.threat("T15", "T110")
async def test_headers_of_the_account_are_sent_and_never_in_the_place_of_ours(world: World, receivers: Receivers):
    receiver, account = await receivers(), await world.account()
    webhook = await world.webhook(account, receiver.url)
    given = {
        "authorization": "Bearer open sesame",
        "webhook-id": "msg_1",
        "host": "evil.test",
        "content-type": "text/x",
    }
    async with transaction(world.sessions) as session:
        headers = sending.seal_headers(world.accounts[account], webhook.id, given)
        (await session.get_one(Webhook, webhook.id)).headers = headers
    assert "sesame" not in json.dumps(headers)
    await world.tell(account)
    await world.send_due()
    (request,) = receiver.requests
    assert request.headers["authorization"] == "Bearer open sesame"
    assert request.headers["webhook-id"] != "msg_1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
