"""One attempt to post: signed, to the checked address, and bounded whatever the receiver does."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError
from tests.notify.receiver import Answer, Receivers, Request, reply
from tests.notify.world import LOOPBACK

from ingestd import __version__, egress
from ingestd.notify import webhooks
from ingestd.notify.webhooks import Code, Message, Result, Sender

NOW = datetime.now(UTC)
SECRET = webhooks.new_secret()


def message(url: str, *keys: str) -> Message:
    content = webhooks.body("webhook.test", NOW, {"id": "ing_1", "greeting": "héllo"})
    return Message(id=UUID(int=7), delivery_id=UUID(int=8), url=url, body=content, keys=keys or (SECRET,))


def sender(**settings: object) -> Sender:
    return Sender(**{"allow": LOOPBACK, **settings})


def names(*addresses: str) -> egress.Resolver:
    """A resolver that gives every name these addresses."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


async def test_the_receiver_can_verify_what_it_got(receivers: Receivers):
    receiver = await receivers()
    result = await sender().send(message(receiver.url), now=datetime.now(UTC))
    (request,) = receiver.requests
    assert Webhook(SECRET).verify(request.body, request.headers) == {
        "type": "webhook.test",
        "timestamp": NOW.isoformat().replace("+00:00", "Z"),
        "data": {"id": "ing_1", "greeting": "héllo"},
    }
    assert (result.code, result.status) == (Code.DELIVERED, 204)
    assert request.target == "/hook?a=b"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["user-agent"] == f"ingestd/{__version__}"
    assert request.headers["ingestd-delivery"] == "dlv_00000000000000000000000008"
    assert request.headers["webhook-id"] == "msg_00000000000000000000000007"
    assert request.headers["content-type"] == "application/json"


async def test_during_a_rotation_both_secrets_verify_and_no_other(receivers: Receivers):
    receiver, older = await receivers(), webhooks.new_secret()
    await sender().send(message(receiver.url, SECRET, older), now=datetime.now(UTC))
    (request,) = receiver.requests
    for known in (SECRET, older):
        Webhook(known).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(webhooks.new_secret()).verify(request.body, request.headers)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(min_size=24, max_size=64), st.text(), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_signatures_are_those_of_standard_webhooks(key: bytes, text: str, at: datetime):
    content, seconds = text.encode("utf-8", "replace"), int(at.replace(tzinfo=UTC).timestamp())
    secret = "whsec_" + webhooks.base64.b64encode(key).decode()
    assert webhooks.sign(secret, "msg_1", seconds, content) == Webhook(secret).sign("msg_1", at, content.decode())


@pytest.mark.threat("T2", "T4")
async def test_it_connects_to_the_checked_address_with_the_name_of_the_url(
    receivers: Receivers, trusting: ssl.SSLContext, serving: ssl.SSLContext
):
    receiver = await receivers(tls=serving)
    url = f"https://hooks.test:{receiver.port}/"
    result = await sender(tls=trusting, resolver=names("127.0.0.1")).send(message(url), now=NOW)
    assert result.code is Code.DELIVERED
    assert receiver.names == ["hooks.test"]
    assert receiver.requests[0].headers["host"] == f"hooks.test:{receiver.port}"


@pytest.mark.threat("T4")
async def test_a_name_that_changes_its_mind_is_looked_up_and_checked_once_per_attempt(receivers: Receivers):
    receiver, answers = await receivers(), [["127.0.0.1"], ["169.254.169.254"]]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    patient = sender(resolver=rebinding)
    url = f"http://hooks.test:{receiver.port}/"
    assert (await patient.send(message(url), now=NOW)).code is Code.DELIVERED
    assert len(answers) == 1
    assert (await patient.send(message(url), now=NOW)).code is Code.BLOCKED
    assert receiver.connections == 1


@pytest.mark.threat("T1", "T2", "T3", "T7")
async def test_a_denied_address_is_never_connected_to(receivers: Receivers):
    receiver = await receivers()
    strict = Sender(resolver=names("8.8.8.8", "127.0.0.1"))
    elsewhere = sender(allow=egress.parse_allow(["10.0.0.0/8:*"]))
    for refused, url in [
        (strict, f"http://127.0.0.1:{receiver.port}/"),
        (strict, f"https://127.0.0.1:{receiver.port}/"),
        (strict, "https://hooks.test/"),
        (elsewhere, f"http://127.0.0.1:{receiver.port}/"),
        (elsewhere, f"http://2130706433:{receiver.port}/"),
    ]:
        assert (await refused.send(message(url), now=NOW)).code is Code.BLOCKED, url
    assert receiver.connections == 0


async def test_the_next_address_is_tried_when_one_refuses(receivers: Receivers):
    receiver = await receivers()
    url = f"http://hooks.test:{receiver.port}/"
    both = sender(resolver=names("127.0.0.2", "127.0.0.1"))
    assert (await both.send(message(url), now=NOW)).code is Code.DELIVERED
    assert len(receiver.requests) == 1


@pytest.mark.threat("T5")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(receivers: Receivers, status: int):
    elsewhere = await receivers()
    receiver = await receivers(reply(status, f"Location: {elsewhere.url}"))
    assert await code(receiver.url) == (Code.HTTP_3XX, status)
    assert (len(receiver.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Code.DELIVERED),
        (299, Code.DELIVERED),
        (400, Code.HTTP_4XX),
        (410, Code.HTTP_4XX),
        (500, Code.HTTP_5XX),
        (999, Code.HTTP_5XX),
    ],
)
async def test_only_2xx_counts_as_delivered(receivers: Receivers, status: int, expected: Code):
    receiver = await receivers(reply(status))
    assert await code(receiver.url) == (expected, status)


@pytest.mark.threat("T10")
async def test_proxies_of_the_environment_are_not_used(receivers: Receivers, monkeypatch: pytest.MonkeyPatch):
    proxy, receiver = await receivers(), await receivers()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
    assert await code(receiver.url) == (Code.DELIVERED, 204)
    assert proxy.connections == 0


@pytest.mark.threat("T12")
@pytest.mark.parametrize("prelude", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["in the head", "in the body"])
async def test_an_answer_that_drips_is_cut(receivers: Receivers, prelude: bytes):
    async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(prelude)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    receiver = await receivers(drip)
    result = await sender(seconds=0.2).send(message(receiver.url), now=NOW)
    assert (result.code, result.status) == (Code.TIMEOUT, None)
    assert 200 <= result.ms < 10_000


@pytest.mark.threat("T12")
async def test_an_endless_answer_is_left_unread(receivers: Receivers):
    ended = asyncio.Event()

    async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            ended.set()

    receiver = await receivers(flood)
    assert await code(receiver.url) == (Code.DELIVERED, 200)
    await ended.wait()


@pytest.mark.threat("T12")
async def test_an_answer_is_never_decompressed(receivers: Receivers):
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)))
    for content in (bomb, b"no gzip at all"):
        receiver = await receivers(reply(200, "Content-Encoding: gzip", body=content))
        assert await code(receiver.url) == (Code.DELIVERED, 200)
        assert receiver.requests[0].headers["accept-encoding"] == "identity"


async def test_a_head_without_end_is_cut(receivers: Receivers):
    async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    receiver = await receivers(endless)
    assert await code(receiver.url) == (Code.CONNECT_FAILED, None)


async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babble(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 smtp.example ESMTP\r\n")


@pytest.mark.parametrize("answer", [hang_up, babble])
async def test_an_answer_that_is_not_http_is_a_failed_connection(receivers: Receivers, answer: Answer):
    receiver = await receivers(answer)
    assert await code(receiver.url) == (Code.CONNECT_FAILED, None)


async def test_a_closed_port_is_a_failed_connection(unused_tcp_port: int):
    assert await code(f"http://127.0.0.1:{unused_tcp_port}/") == (Code.CONNECT_FAILED, None)


async def test_a_name_without_address_is_a_failed_lookup():
    async def no_such_name(_host: str, _port: int) -> list[str]:
        raise OSError

    result = await sender(resolver=no_such_name).send(message("https://hooks.test/"), now=NOW)
    assert result.code is Code.DNS_FAILED


async def test_a_receiver_must_prove_its_name(receivers: Receivers, trusting: ssl.SSLContext, serving: ssl.SSLContext):
    receiver = await receivers(tls=serving)
    here = names("127.0.0.1")
    for refusing, url in [
        (sender(resolver=here), f"https://hooks.test:{receiver.port}/"),
        (sender(resolver=here, tls=trusting), f"https://other.test:{receiver.port}/"),
    ]:
        assert (await refusing.send(message(url), now=NOW)).code is Code.TLS_FAILED
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (429, "120", timedelta(minutes=2)),
        (503, "Thu, 01 Jan 2026 13:00:00 GMT", timedelta(hours=1)),
        (503, "0", timedelta(0)),
        (503, "Mon, 01 Jan 2001 00:00:00 GMT", timedelta(0)),
        (503, "9" * 12, timedelta(days=1)),
        (503, "9" * 400, None),
        (503, "172800", timedelta(days=1)),
        (503, "9" * 5000, None),
        (503, "soon", None),
        (503, "-5", None),
        (500, "120", None),
    ],
)
async def test_retry_after_is_read_with_429_and_503(
    receivers: Receivers, status: int, header: str, expected: timedelta | None
):
    receiver = await receivers(reply(status, f"Retry-After: {header}"))
    result = await sender().send(message(receiver.url), now=datetime(2026, 1, 1, 12, tzinfo=UTC))
    assert result.retry_after == expected


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text(max_size=300))))
def test_a_body_is_compact_json_of_the_event(data: dict[str, object]):
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    content = webhooks.body("file.received", at, data)
    assert json.loads(content) == {"type": "file.received", "timestamp": "2026-01-02T03:04:05Z", "data": data}


@pytest.mark.threat("T103")
def test_a_body_stays_below_20_kb_and_names_what_it_left_out():
    content = webhooks.body("file.received", NOW, {"id": "ing_1", "warnings": ["é" * 10_000]})
    assert len(content) < 20_000
    assert json.loads(content)["data"] == {"id": "ing_1", "truncated": True}


async def code(url: str) -> tuple[Code, int | None]:
    result: Result = await sender().send(message(url), now=NOW)
    return result.code, result.status
