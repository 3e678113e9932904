"""Messages: to whom they go, in time, under one id, and never more than the account wants."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tests.notify.post_office import PostOffice, post_office
from tests.notify.world import LOOPBACK, World

from ingestd.blobs.store import open_store
from ingestd.notify.outbox import WAITS, Outbox
from ingestd.notify.smtp import MailServer
from ingestd.store import messages
from ingestd.store.engine import transaction

RUN = {"id": "run_7", "due_at": "2026-11-25T20:00:00Z", "error": {"message": "No.", "detail": "So.", "remedy": "Do."}}
ANN, BOB = "ann@example.org", "bob@example.org"


def server(office: PostOffice) -> MailServer:
    return MailServer(host="127.0.0.1", port=office.port, security="none", sender="post@cdp.test", allow=LOOPBACK)


def stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def to_whom(world: World) -> list[str]:
    return [message.address for message in await world.messages()]


@pytest.mark.rule("S36", "D39")
async def test_told_are_those_who_are_named_unless_they_do_not_want_the_milestone(world: World):
    account = await world.account()
    await world.recipient(account, ANN, ["failed"])
    await world.recipient(account, BOB, ["attention"])
    await world.recipient(account, "eve@example.org", ["failed", "attention"], confirmed=False)
    named = [ANN, BOB, "eve@example.org", "of-a-domain@example.org"]
    await world.write(account, "run.failed", named, **RUN)
    assert await to_whom(world) == [ANN, "of-a-domain@example.org"]
    world.clock.move(timedelta(seconds=1))
    await world.write(account, "webhook.disabled", None, id="whk_7")
    assert (await to_whom(world))[2:] == [BOB]
    await world.write(account, "segment.created", named)
    await world.write(account, "segment.created", None)
    assert len(await to_whom(world)) == 3


@pytest.mark.rule("S133", "D58")
async def test_an_account_without_milestone_mails_hears_of_failures_only(world: World):
    account = await world.account(features={"milestone_emails": False})
    for kind in ("scheduled", "picked_up", "delayed", "completed", "failed"):
        await world.write(account, f"ingestion.{kind}", [ANN], id="ing_7")
    async with world.sessions() as session:
        claimed = await messages.claim(session, room=9, now=world.clock())
    assert [each.type for each in claimed] == ["ingestion.failed"]


@pytest.mark.fault
async def test_a_server_that_dies_in_the_middle_gets_the_same_mail_again(world: World):
    account = await world.account()
    await world.write(account, "run.failed", [ANN], **RUN)
    async with post_office() as office:
        seen = []

        def dies_twice(_session: object) -> str | None:
            seen.append(1)
            return "die" if len(seen) < 3 else None

        office.at_data = dies_twice
        for wait in WAITS[:3]:
            world.clock.move(wait)
            assert await world.mail_due(server(office)) == 1
    (message,) = await world.messages()
    (mail,) = office.mails
    assert (message.state, message.failures) == ("delivered", 2)
    assert [each["code"] for each in message.attempts] == ["connect_failed", "connect_failed", "delivered"]
    assert message.attempts[-1]["answer"] == "2.0.0 Taken as number 7"
    assert str(mail["Message-ID"]).startswith("<msg_")
    assert mail["To"] == ANN


async def test_a_mail_sent_again_has_the_same_id(world: World):
    account = await world.account()
    await world.write(account, "run.failed", [ANN], **RUN)
    async with post_office() as office:
        await world.mail_due(server(office))
        (message,) = await world.messages()
        async with transaction(world.sessions) as session:
            await messages.resend(session, account, message.id, now=world.clock())
        await world.mail_due(server(office))
    assert len({str(mail["Message-ID"]) for mail in office.mails}) == 1
    assert len(office.mails) == 2


@pytest.mark.rule("S134")
async def test_one_refused_recipient_does_not_keep_the_mail_from_the_others(world: World):
    account = await world.account()
    await world.write(account, "run.failed", [ANN, BOB], **RUN)
    async with post_office(refusing=lambda to: "550 5.1.1 Unknown" if to == ANN else None) as office:
        await world.mail_due(server(office))
        world.clock.move(timedelta(days=30))
        assert await world.mail_due(server(office)) == 0
    first, second = await world.messages()
    assert (first.address, first.state, first.attempts[0]["status"]) == (ANN, "dead", 550)
    assert first.attempts[0]["answer"] == "5.1.1 Unknown"
    assert (second.address, second.state) == (BOB, "delivered")
    assert [mail["To"] for mail in office.mails] == [BOB]


async def test_a_mail_is_tried_ten_times_and_then_given_up(world: World, unused_tcp_port: int):
    account = await world.account()
    await world.write(account, "run.failed", [ANN], **RUN)
    gone = MailServer(host="127.0.0.1", port=unused_tcp_port, security="none", sender="post@cdp.test", allow=LOOPBACK)
    for wait in WAITS:
        world.clock.move(wait - timedelta(seconds=1))
        assert await world.mail_due(gone) == 0
        world.clock.move(timedelta(seconds=1))
        assert await world.mail_due(gone) == 1
    (message,) = await world.messages()
    assert (message.state, message.failures, message.next_attempt_at) == ("dead", 10, None)


async def test_one_account_does_not_hold_up_another(world: World):
    busy, calm = await world.account(), await world.account()
    for _ in range(3 * messages.PER_ACCOUNT):
        await world.write(busy, "run.failed", [ANN], **RUN)
    world.clock.move(timedelta(seconds=1))
    await world.write(calm, "run.failed", [BOB], **RUN)
    async with transaction(world.sessions) as session:
        claimed = await messages.claim(session, room=3, now=world.clock())
        more = await messages.claim(session, room=100, now=world.clock())
    assert [each.account_id for each in claimed].count(calm) == 1
    assert len([each for each in claimed + more if each.account_id == busy]) == messages.PER_ACCOUNT


async def test_without_a_server_mails_are_kept_sealed(world: World, tmp_path: Path):
    world.blobs = open_store(tmp_path)
    account = await world.account()
    await world.write(account, "run.failed", [ANN], **RUN)
    await world.mail_due(None)
    (message,) = await world.messages()
    assert (message.state, message.attempts[0]["code"]) == ("delivered", "kept")
    kept = world.blobs.open(message.blob, world.accounts[account]).read(100_000)
    assert b"To: ann@example.org\r\n" in kept
    assert b"ann@example.org" not in stored(tmp_path)


async def test_a_mail_leaves_when_its_transaction_commits(world: World):
    account, stop, taken = await world.account(), asyncio.Event(), asyncio.Event()

    def take(_session: object) -> None:
        taken.set()

    async with post_office(at_data=take) as office:
        outbox = Outbox(
            url=world.url, sessions=world.sessions, channel=world.mailing(server(office)), clock=world.clock
        )
        running = asyncio.create_task(outbox.run(stop))
        await world.write(account, "run.failed", [ANN], **RUN)
        async with asyncio.timeout(20):
            await taken.wait()
        stop.set()
        await running
    assert [message.state for message in await world.messages()] == ["delivered"]
