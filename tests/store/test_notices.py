"""The outbox's tables: a notice, its deliveries, and what may be asked of webhooks and deliveries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.conftest import own_database

from ingestd.domain.errors import Conflict, NotFound
from ingestd.domain.notice import NoticeType
from ingestd.store import deliveries, engine, outgoing, webhooks
from ingestd.store.accounts import Account
from ingestd.store.base import Base
from ingestd.store.deliveries import Delivery
from ingestd.store.engine import Sessions, transaction
from ingestd.store.notices import CHANNEL, Notice, adding
from ingestd.store.outgoing import DeliveryState, Ended
from ingestd.store.page import Cut
from ingestd.store.webhooks import Webhook

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO notices%'"
TABLES = [Base.metadata.tables[name] for name in ("accounts", "webhooks", "notices", "deliveries")]


def newest(table: Any, *, after: UUID | None = None, limit: int = 50) -> Cut:
    """The page of the newest rows, those after an id."""
    return Cut(table.SORTS["created_at"], descending=True, after=after and (str(after),), limit=limit)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with own_database() as url:
        yield url


@pytest.fixture(scope="module")
async def database(url: str) -> AsyncIterator[AsyncEngine]:
    made = engine.async_engine(url)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=TABLES)
    yield made
    await made.dispose()


@pytest.fixture
async def sessions(database: AsyncEngine) -> Sessions:
    async with database.begin() as connection:
        await connection.execute(text("TRUNCATE accounts CASCADE"))
    return engine.sessions(database)


@pytest.fixture
async def account(sessions: Sessions) -> UUID:
    return await new_account(sessions)


async def new_account(sessions: Sessions) -> UUID:
    account_id = engine.new_id()
    async with transaction(sessions) as session:
        session.add(
            Account(
                id=account_id, name="an account", time_zone="UTC", sync_time=time(4), features={}, email_domains=[],
                next_seq=1, data_keys=b"", index_key=b"", created_at=NOW,
            )
        )  # fmt: skip
    return account_id


async def new_webhook(sessions: Sessions, account_id: UUID, **more: object) -> Webhook:
    values = {"name": "a webhook", "url": "https://hooks.test/", "secret": b"sealed", "enabled": True} | more
    webhook = Webhook(id=engine.new_id(), account_id=account_id, created_at=NOW, updated_at=NOW, **values)
    async with transaction(sessions) as session:
        session.add(webhook)
    return webhook


def new_notice(account_id: UUID, kind: NoticeType = NoticeType.INGESTION_COMPLETED) -> Notice:
    data = {"id": "ing_1", "names": ["é", '"']}
    return Notice(
        id=engine.new_id(), account_id=account_id, type=kind, subject_id=UUID(int=5), data=data, created_at=NOW
    )


async def tell(sessions: Sessions, account_id: UUID, **webhooks: list[UUID]) -> UUID:
    notice = new_notice(account_id)
    async with transaction(sessions) as session:
        await session.execute(adding(notice, **webhooks))
    return notice.id


async def told(sessions: Sessions) -> list[UUID]:
    """The webhooks that deliveries are for."""
    async with sessions() as session:
        return list(await session.scalars(select(Delivery.webhook_id).order_by(Delivery.webhook_id)))


async def only(sessions: Sessions) -> Delivery:
    async with sessions() as session:
        return (await session.scalars(select(Delivery))).one()


async def finish(sessions: Sessions, *, delivered: bool = False, now: datetime = NOW) -> None:
    """Claim all that is due and mark it delivered, or dead."""
    async with transaction(sessions) as session:
        claimed = await deliveries.claim(session, room=100, now=now)
        ended = [Ended(each, {"code": "x"}, delivered=delivered, again_at=None) for each in claimed]
        await outgoing.mark(session, Delivery, ended)


async def test_a_notice_and_its_deliveries_are_one_with_the_fact(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    async with sessions() as session:
        await session.execute(adding(new_notice(account)))
        await session.rollback()
    assert await told(sessions) == []
    notice_id = await tell(sessions, account)
    delivery = await only(sessions)
    assert (delivery.webhook_id, delivery.notice_id, delivery.account_id) == (webhook.id, notice_id, account)
    assert (delivery.state, delivery.next_attempt_at, delivery.attempts) == ("pending", NOW, [])


async def test_the_flow_writes_the_same_with_its_synchronous_connection(sessions: Sessions, account: UUID, url: str):
    webhook, notice = await new_webhook(sessions, account), new_notice(account)
    made = engine.engine(url)
    with made.begin() as connection:
        connection.execute(adding(notice))
    made.dispose()
    async with sessions() as session:
        shown = (await deliveries.page(session, webhook, newest(deliveries)))[0]
    assert shown.Notice.data == notice.data
    assert (shown.Notice.subject_id, shown.Notice.type) == (UUID(int=5), "ingestion.completed")


async def test_a_commit_wakes_who_listens_and_a_rollback_does_not(sessions: Sessions, account: UUID, url: str):
    await new_webhook(sessions, account)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        async with sessions() as session:
            await session.execute(adding(new_notice(account)))
            await session.rollback()
        assert list(listener.notifies(timeout=0)) == []
        await tell(sessions, account)
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


@pytest.mark.rule("S136")
async def test_told_are_the_webhooks_that_want_the_type_or_those_chosen(sessions: Sessions, account: UUID):
    everything = await new_webhook(sessions, account)
    completed = await new_webhook(sessions, account, events=["file.received", "ingestion.completed"])
    failed = await new_webhook(sessions, account, events=["ingestion.failed"])
    disabled = await new_webhook(sessions, account, enabled=False)
    stranger = await new_webhook(sessions, await new_account(sessions))
    await tell(sessions, account)
    assert await told(sessions) == [everything.id, completed.id]
    await tell(sessions, account, chosen=[failed.id, disabled.id, stranger.id])
    assert Counter(await told(sessions)) == {everything.id: 2, completed.id: 2, failed.id: 1}
    await tell(sessions, account, only=[failed.id, disabled.id, stranger.id])
    assert Counter(await told(sessions)) == {everything.id: 2, completed.id: 2, failed.id: 2}
    await tell(sessions, account, only=[])
    assert len(await told(sessions)) == 6


@pytest.mark.rule("S136")
async def test_a_choice_of_unknown_webhooks_is_seen(sessions: Sessions, account: UUID):
    mine, theirs = await new_webhook(sessions, account), await new_webhook(sessions, await new_account(sessions))
    async with sessions() as session:
        assert await webhooks.unknown(session, account, [mine.id, theirs.id, UUID(int=1)]) == {theirs.id, UUID(int=1)}
        assert await webhooks.unknown(session, account, []) == set()


@pytest.mark.threat("T50")
async def test_webhooks_and_deliveries_of_others_are_not_found(sessions: Sessions, account: UUID):
    mine, theirs = await new_webhook(sessions, account), await new_webhook(sessions, await new_account(sessions))
    await tell(sessions, account)
    delivery = await only(sessions)
    async with sessions() as session:
        assert (await webhooks.get(session, account, mine.id)).id == mine.id
        assert (await deliveries.get(session, mine, delivery.id)).Delivery.id == delivery.id
        assert await deliveries.page(session, theirs, newest(deliveries)) == []
        with pytest.raises(NotFound):
            await webhooks.get(session, account, theirs.id)
        with pytest.raises(NotFound):
            await deliveries.get(session, theirs, delivery.id)
        with pytest.raises(NotFound):
            await deliveries.redeliver(session, theirs, delivery.id, now=NOW)


async def test_pages_are_newest_first_and_leave_nothing_out(sessions: Sessions, account: UUID):
    hooks = [(await new_webhook(sessions, account)).id for _ in range(5)]
    notices = [await tell(sessions, account) for _ in range(5)]
    async with sessions() as session:
        first = await webhooks.page(session, account, newest(webhooks, limit=2))
        assert [each.id for each in first] == hooks[:1:-1], "one more than asked for"
        rest = await webhooks.page(session, account, newest(webhooks, after=first[1].id))
        assert [each.id for each in rest] == hooks[2::-1]
        shown = await deliveries.page(session, rest[0], newest(deliveries, limit=2))
        assert [each.Notice.id for each in shown] == notices[:1:-1]
        rows = await deliveries.page(session, rest[0], newest(deliveries, after=notices[3]))
        assert [each.Delivery.notice_id for each in rows] == notices[2::-1]


async def test_a_webhook_goes_with_its_deliveries(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    await tell(sessions, account)
    async with transaction(sessions) as session:
        await session.delete(await webhooks.get(session, account, webhook.id))
    assert await told(sessions) == []


async def test_a_webhook_that_is_just_being_deleted_fails_nobody_and_is_left_out(
    sessions: Sessions, account: UUID, url: str
):
    gone, kept = await new_webhook(sessions, account), await new_webhook(sessions, account)
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as watch,
        asyncio.TaskGroup() as tasks,
        sessions() as deleting,
    ):
        await deleting.delete(await webhooks.get(deleting, account, gone.id, lock=True))
        await deleting.flush()
        telling = tasks.create_task(tell(sessions, account))
        while not telling.done() and (await (await watch.execute(WAITING)).fetchone()) == (0,):
            pass
        await deleting.commit()
    assert await told(sessions) == [kept.id]


async def test_enabling_gives_back_all_patience(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    for days in (0, 5):
        async with transaction(sessions) as session:
            await webhooks.record_failure(session, webhook.id, gone=False, now=NOW + timedelta(days=days))
    async with transaction(sessions) as session:
        found = await webhooks.get(session, account, webhook.id)
        assert (found.enabled, found.disabled_reason) == (False, "failing")
        found.enable()
    async with transaction(sessions) as session:
        await webhooks.record_failure(session, webhook.id, gone=False, now=NOW + timedelta(days=6))
        found = await webhooks.get(session, account, webhook.id)
        assert found.enabled
        found.disable()
        assert (found.enabled, found.disabled_reason) == (False, "by_account")


async def test_a_failure_leaves_the_reason_of_a_disabled_webhook_alone(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account, enabled=False, disabled_reason="by_account")
    async with transaction(sessions) as session:
        await webhooks.record_failure(session, webhook.id, gone=True, now=NOW)
    async with sessions() as session:
        assert (await webhooks.get(session, account, webhook.id)).disabled_reason == "by_account"


async def test_any_delivery_can_be_sent_again_with_a_new_series_of_attempts(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    await tell(sessions, account)
    for delivered in (True, False):
        await finish(sessions, delivered=delivered)
        before = await only(sessions)
        assert before.state == ("delivered" if delivered else "dead")
        async with transaction(sessions) as session:
            await deliveries.redeliver(session, webhook, before.id, now=NOW)
        after = await only(sessions)
        assert (after.state, after.next_attempt_at, after.failures) == ("pending", NOW, 0)
        assert after.attempts == before.attempts, "what was tried stays to be seen"


async def test_a_delivery_on_its_way_is_left_to_its_dispatcher(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    await tell(sessions, account)
    async with transaction(sessions) as session:
        (claimed,) = await deliveries.claim(session, room=1, now=NOW)
    async with transaction(sessions) as session:
        await deliveries.redeliver(session, webhook, claimed.id, now=NOW)
    delivery = await only(sessions)
    assert (delivery.state, delivery.next_attempt_at) == (DeliveryState.SENDING, claimed.lease)


async def test_what_died_since_a_moment_can_be_recovered(sessions: Sessions, account: UUID):
    webhook, other = await new_webhook(sessions, account), await new_webhook(sessions, account)
    await tell(sessions, account)
    await finish(sessions)
    async with transaction(sessions) as session:
        assert await deliveries.recover(session, webhook, since=NOW + timedelta(seconds=1), now=NOW) == 0
        assert await deliveries.recover(session, webhook, since=NOW, now=NOW) == 1
        assert [each.Delivery.state for each in await deliveries.page(session, other, newest(deliveries))] == ["dead"]


async def test_nothing_is_sent_again_to_a_disabled_webhook(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account, enabled=False)
    async with sessions() as session:
        with pytest.raises(Conflict) as caught:
            await deliveries.recover(session, webhook, since=NOW, now=NOW)
    assert caught.value.code == "webhook_disabled"


async def test_the_newest_attempts_are_kept(sessions: Sessions, account: UUID):
    await new_webhook(sessions, account)
    await tell(sessions, account)
    for number in range(outgoing.ATTEMPTS_KEPT + 3):
        async with transaction(sessions) as session:
            (claimed,) = await deliveries.claim(session, room=1, now=NOW)
            ended = Ended(claimed, {"n": number}, delivered=False, again_at=NOW)
            await outgoing.mark(session, Delivery, [ended])
    attempts = (await only(sessions)).attempts
    assert [each["n"] for each in attempts] == list(range(3, outgoing.ATTEMPTS_KEPT + 3))


async def test_the_next_due_time_is_that_of_what_waits_or_was_left_behind(sessions: Sessions, account: UUID):
    await new_webhook(sessions, account)
    async with sessions() as session:
        assert await outgoing.next_due(session, Delivery, now=NOW) is None
    await tell(sessions, account)
    async with transaction(sessions) as session:
        (claimed,) = await deliveries.claim(session, room=1, now=NOW)
        assert await outgoing.next_due(session, Delivery, now=NOW) == claimed.lease
        later = NOW + timedelta(seconds=5)
        await outgoing.mark(session, Delivery, [Ended(claimed, {}, delivered=False, again_at=later)])
        assert await outgoing.next_due(session, Delivery, now=NOW) == later
        assert await outgoing.next_due(session, Delivery, now=later) is None


async def test_a_closed_delivery_cannot_be_due(sessions: Sessions, account: UUID):
    await new_webhook(sessions, account)
    await tell(sessions, account)
    async with sessions() as session:
        with pytest.raises(IntegrityError, match="ck_deliveries_open"):
            await session.execute(text("UPDATE deliveries SET state = 'dead'"))


async def test_a_claim_with_a_long_backlog_reads_only_what_it_takes(sessions: Sessions, account: UUID):
    webhook = await new_webhook(sessions, account)
    async with transaction(sessions) as session:
        await session.execute(
            text("""
                WITH made AS (
                    INSERT INTO notices SELECT gen_random_uuid(), :account, 'file.received', NULL, '{}', :now
                    FROM generate_series(1, 20000) RETURNING id
                )
                INSERT INTO deliveries (account_id, webhook_id, notice_id, state, failures, attempts, next_attempt_at,
                                        created_at)
                SELECT :account, :webhook, id, 'pending', 0, '[]', :now, :now FROM made
            """),
            {"account": account, "webhook": webhook.id, "now": NOW},
        )
    async with transaction(sessions) as session:
        await session.execute(text("ANALYZE deliveries"))
    async with transaction(sessions) as session:
        assert len(await deliveries.claim(session, room=32, now=NOW)) == deliveries.PER_WEBHOOK
        reads = await session.scalar(select(func.pg_stat_get_xact_tuples_returned(func.to_regclass("deliveries"))))
        assert reads < 1000
