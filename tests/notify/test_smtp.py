"""One attempt to hand over a mail: TLS, logins, refusals, a server that dies, and addresses that are denied."""

from __future__ import annotations

import asyncio
import ssl
from email.message import EmailMessage
from typing import Any

import pytest
from tests.notify.post_office import NAME, PASSWORD, post_office

from ingestd import egress
from ingestd.notify.smtp import MailCode, MailServer

LOOPBACK = egress.parse_allow(["127.0.0.0/8:*"])
LOGIN = {"username": NAME, "password": PASSWORD}


async def here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def server(port: int, security: str = "none", **more: Any) -> MailServer:
    given = {"host": "mail.test", "sender": "ingestd <post@cdp.test>", "allow": LOOPBACK, "resolver": here} | more
    return MailServer(port=port, security=security, **given)


def mail() -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "Hello", "post@cdp.test", "ann@example.org"
    made.set_content("Héllo.\n")
    return made


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_is_handed_over_with_tls(certified: ssl.SSLContext, trusting: ssl.SSLContext, security: str):
    login = LOGIN if security == "starttls" else {}
    async with post_office(certified, implicit=security == "tls") as office:
        result = await server(office.port, security, tls=trusting, **login).send(mail(), "ann@example.org")
    assert (result.code, result.status, result.answer) == (MailCode.DELIVERED, 250, "2.0.0 Taken as number 7")
    assert office.encrypted == [True]
    assert office.mails[0].get_content().strip() == "Héllo."


async def test_a_look_in_connects_and_logs_in_and_sends_nothing(certified: ssl.SSLContext, trusting: ssl.SSLContext):
    async with post_office(certified) as office:
        sound = await server(office.port, "starttls", tls=trusting, **LOGIN).greet()
        wrong = await server(office.port, "starttls", tls=trusting, username=NAME, password="wrong").greet()
    assert [sound.code, wrong.code, office.mails] == [MailCode.DELIVERED, MailCode.LOGIN_FAILED, []]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_server_must_prove_its_name(certified: ssl.SSLContext, trusting: ssl.SSLContext, security: str):
    async with post_office(certified, implicit=security == "tls") as office:
        stranger = server(office.port, security, host="other.test", tls=trusting, **LOGIN)
        unknown = server(office.port, security, **LOGIN)
        codes = [(await each.send(mail(), "ann@example.org")).code for each in (stranger, unknown)]
    assert codes == [MailCode.TLS_FAILED] * 2
    assert office.mails == []


async def test_nothing_is_said_in_the_clear_to_a_server_without_starttls(trusting: ssl.SSLContext):
    async with post_office() as office:
        result = await server(office.port, "starttls", tls=trusting, **LOGIN).send(mail(), "ann@example.org")
    assert (result.code, office.mails) == (MailCode.CONNECT_FAILED, [])


async def test_a_wrong_password_is_the_operators_to_mend(certified: ssl.SSLContext, trusting: ssl.SSLContext):
    async with post_office(certified) as office:
        wrong = server(office.port, "starttls", tls=trusting, username=NAME, password="wrong")
        result = await wrong.send(mail(), "ann@example.org")
    assert (result.code, result.status) == (MailCode.LOGIN_FAILED, 535)


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [("550 5.1.1 No such user\r\n here", MailCode.REFUSED, 550), ("450 4.2.1 Try later", MailCode.DEFERRED, 450)],
)
async def test_a_refused_recipient_is_refused_for_good_or_for_now(answer: str, code: MailCode, status: int):
    async with post_office(refusing=lambda _: answer.replace("\r\n", "")) as office:
        result = await server(office.port).send(mail(), "ann@example.org")
    assert (result.code, result.status) == (code, status)
    assert result.answer == answer[4:].replace("\r\n", "")


@pytest.mark.parametrize(("answer", "code"), [("554 5.7.1 Spam", MailCode.REFUSED), ("452 Full", MailCode.DEFERRED)])
async def test_a_refused_mail_is_refused_for_good_or_for_now(answer: str, code: MailCode):
    async with post_office(at_data=lambda _: answer) as office:
        assert (await server(office.port).send(mail(), "ann@example.org")).code is code


@pytest.mark.fault
async def test_a_server_that_dies_in_the_middle_is_a_failed_connection():
    async with post_office(at_data=lambda _: "die") as office:
        result = await server(office.port).send(mail(), "ann@example.org")
    assert (result.code, result.status) == (MailCode.CONNECT_FAILED, None)


@pytest.mark.threat("T12")
async def broken_off(server: Any) -> None:
    server.transport.abort()


async def refused(server: Any) -> None:
    await server.push("421 4.4.2 Closing anyway")
    server.transport.close()


async def silent(_server: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("at_quit", [broken_off, refused, silent])
async def test_a_mail_that_the_server_has_taken_is_delivered_however_it_says_goodbye(monkeypatch: Any, at_quit: Any):
    monkeypatch.setattr("ingestd.notify.smtp.GOODBYE_SECONDS", 0.1)
    async with post_office(at_quit=at_quit) as office:
        result = await server(office.port).send(mail(), "ann@example.org")
    assert (result.code, result.status, len(office.mails)) == (MailCode.DELIVERED, 250, 1)


async def test_a_server_that_says_nothing_is_left():
    silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        result = await server(port, seconds=0.2).send(mail(), "ann@example.org")
    assert result.code is MailCode.TIMEOUT


@pytest.mark.threat("T1", "T2", "T3", "T4")
async def test_a_denied_server_is_never_connected_to():
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    async with post_office() as office:
        patient = server(office.port, resolver=rebinding)
        codes = [(await patient.send(mail(), "ann@example.org")).code for _ in range(2)]
        codes.append((await server(office.port, allow=()).send(mail(), "ann@example.org")).code)
    assert codes == [MailCode.DELIVERED, MailCode.BLOCKED, MailCode.BLOCKED]
    assert office.connections == 1


async def test_the_next_address_is_tried_when_one_refuses():
    async def two(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with post_office() as office:
        assert (await server(office.port, resolver=two).send(mail(), "ann@example.org")).code is MailCode.DELIVERED
    assert office.connections == 1


async def test_a_closed_port_is_a_failed_connection(unused_tcp_port: int):
    assert (await server(unused_tcp_port).send(mail(), "ann@example.org")).code is MailCode.CONNECT_FAILED
