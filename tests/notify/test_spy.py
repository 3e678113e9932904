"""No door out of the house opens to a denied place: a spy counts the connections of webhooks and of mail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime
from email.message import EmailMessage
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from tests.test_egress import DENIED

from ingestd.notify.smtp import MailServer
from ingestd.notify.webhooks import Code, Message, Sender, new_secret

TLS = ssl.create_default_context()
ADDRESSES = [str(ip_network(row)[edge]) for row in DENIED for edge in (0, -1)]
ODD = [
    *("127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.01", "①②⑦.⓪.⓪.①", "localhost.", "ex。ample"),
    *("a@127.0.0.1", "evil\\@127.0.0.1", "[fe80::1%25eth0]", "[::ffff:127.0.0.1]", "metadata.google.internal"),
]


WATCHED: ContextVar[bool] = ContextVar("watched", default=False)
"""Whether a test's own code runs: the service of the run shares the loop, and its webhooks are not the test's."""


class Spy:
    """Notes where connections of the test go, and lets none of them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        loop = type(asyncio.get_running_loop())
        really = loop.sock_connect

        async def connect(self_: asyncio.AbstractEventLoop, socket: Any, address: Any) -> None:
            if not WATCHED.get():
                return await really(self_, socket, address)
            self.seen.append(address)
            raise ConnectionRefusedError

        monkeypatch.setattr(loop, "sock_connect", connect)


@pytest.fixture
async def spy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spy]:
    token = WATCHED.set(True)
    yield Spy(monkeypatch)
    WATCHED.reset(token)


def sender(*answers: list[str]) -> tuple[Sender, MailServer]:
    """Both ways out, whose resolver gives these answers one after the other, and then the last."""
    given = list(answers)

    async def resolver(_host: str, _port: int) -> list[str]:
        return given.pop(0) if len(given) > 1 else given[0]

    mail = MailServer(host="mail.test", port=587, security="none", sender="post@cdp.test", resolver=resolver, tls=TLS)
    return Sender(resolver=resolver, tls=TLS), mail


async def post(way: Sender, url: str) -> Code:
    message = Message(id=UUID(int=1), delivery_id=UUID(int=2), url=url, body=b"{}", keys=[new_secret()])
    return (await way.send(message, now=datetime.now(UTC))).code


async def write(way: MailServer) -> str:
    mail = EmailMessage()
    mail.set_content("Hello.")
    return (await way.send(mail, "ann@example.org")).code


@pytest.mark.threat("T1", "T2", "T3", "T6", "T8")
async def test_no_connection_is_made_to_any_row_of_the_table(spy: Spy):
    for address in ADDRESSES:
        for answer in ([address], ["8.8.8.8", address]):
            hooks, mail = sender(answer)
            assert await post(hooks, "https://hooks.test/") == Code.BLOCKED, address
            assert await write(mail) == "blocked", address
    assert spy.seen == []


@pytest.mark.threat("T7", "T8")
@pytest.mark.parametrize("host", ODD)
async def test_no_connection_is_made_to_a_host_that_is_oddly_spelt(spy: Spy, host: str):
    hooks, _ = sender(["8.8.8.8"])
    assert await post(hooks, f"https://{host}/") == Code.BLOCKED
    assert spy.seen == []


@pytest.mark.threat("T4")
async def test_a_name_that_changes_its_mind_is_connected_to_as_it_was_checked(spy: Spy):
    hooks, mail = sender(["8.8.8.8"], ["8.8.4.4"], ["127.0.0.1"])
    assert await post(hooks, "https://hooks.test/") == Code.CONNECT_FAILED
    assert await write(mail) == "connect_failed"
    assert await post(hooks, "https://hooks.test/") == Code.BLOCKED
    assert spy.seen == [("8.8.8.8", 443), ("8.8.4.4", 587)]


@pytest.mark.threat("T9")
@pytest.mark.parametrize("port", [22, 25, 5432, 6379, 8080])
async def test_no_connection_is_made_to_a_port_of_something_else(spy: Spy, port: int):
    hooks, _ = sender(["8.8.8.8"])
    assert await post(hooks, f"https://hooks.test:{port}/") == Code.BLOCKED
    assert spy.seen == []
