"""Where we connect: every row of the deny list, odd spellings, and names that lead elsewhere."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.errors import Forbidden, Invalid, Unavailable
from ingestd.egress import (
    Purpose,
    ResolvedAddress,
    check_address,
    parse_allow,
    parse_host,
    parse_url,
    resolve,
    system_resolver,
)

NOTHING = parse_allow([])
LOOPBACK = parse_allow(["127.0.0.0/8:*", "::1/128:*"])
DENIED = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "168.63.129.16/32",
    "::/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
DENIED_NETWORKS = [ip_network(row) for row in DENIED]


def is_open(ip, port=443, purpose=Purpose.WEBHOOK, allow=NOTHING):
    try:
        check_address(ip, port, purpose=purpose, allow=allow)
    except Forbidden:
        return False
    return True


def by_the_table(address):
    """The verdict on an address by the rows above, read one by one."""
    if address.version == 6 and address not in ip_network("2000::/3"):
        return False
    return not any(address in network for network in DENIED_NETWORKS if network.version == address.version)


@pytest.mark.threat("T1", "T6")
@pytest.mark.parametrize("row", DENIED)
def test_a_denied_network_is_denied_to_its_ends_and_no_further(row):
    network = ip_network(row)
    assert not is_open(str(network[0]))
    assert not is_open(str(network[-1]))
    for neighbour in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= neighbour < 2**network.max_prefixlen:
            address = type(network[0])(neighbour)
            assert is_open(str(address)) == by_the_table(address)


@pytest.mark.threat("T1")
@pytest.mark.parametrize(
    ("ip", "verdict"),
    [
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("172.15.255.255", True),
        ("172.16.0.0", False),
        ("172.31.255.255", False),
        ("172.32.0.0", True),
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("4000::1", False),
    ],
)
def test_an_address_beside_a_denied_network_is_judged_by_its_own(ip, verdict):
    assert is_open(ip) == verdict


@pytest.mark.threat("T1")
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_every_address_gets_the_verdict_of_the_table(address):
    if not (address.version == 6 and address.ipv4_mapped):
        assert is_open(str(address)) == by_the_table(address)


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    "ip",
    [
        "::ffff:127.0.0.1",
        "::ffff:a00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "2001:0:53aa:64c:0:0:80ff:fffe",
        "::",
        "::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
    ],
)
def test_an_ipv4_address_inside_an_ipv6_one_and_a_zone_are_denied(ip):
    assert not is_open(ip)


def test_a_mapped_address_is_judged_and_reached_as_what_it_is():
    mapped = check_address("::ffff:8.8.8.8", 443, purpose=Purpose.WEBHOOK, allow=NOTHING)
    assert mapped == "8.8.8.8"
    assert check_address("::ffff:127.0.0.1", 443, purpose=Purpose.WEBHOOK, allow=LOOPBACK) == "127.0.0.1"


@pytest.mark.threat("T8")
@pytest.mark.parametrize("ip", ["169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"])
def test_metadata_services_are_denied(ip):
    assert not is_open(ip)


@pytest.mark.threat("T8")
@pytest.mark.parametrize(
    "host", ["metadata.google.internal", "localhost", "a.localhost", "printer.local", "nas.home.arpa"]
)
async def test_internal_names_are_denied_wherever_they_lead(host):
    with pytest.raises(Forbidden):
        await resolve(host, 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=Answers(["8.8.8.8"]))


@pytest.mark.threat("T9")
@pytest.mark.parametrize(
    ("purpose", "ports"),
    [
        (Purpose.WEBHOOK, {443, 8443}),
        (Purpose.WEBHOOK_PLAIN, set()),
        (Purpose.FTP, {21, 990}),
        (Purpose.SFTP, {22, 2022, 2222}),
        (Purpose.SMTP, {25, 465, 587}),
    ],
)
def test_each_purpose_has_its_ports(purpose, ports):
    assert {port for port in [*range(1, 10_000), 65535] if is_open("8.8.8.8", port, purpose)} == ports


def test_the_operator_opens_a_network_and_a_port():
    allow = parse_allow(["10.1.0.0/16:443", "fd00::/8:*", " 192.0.2.7/32:2121 "])
    for ip, port, verdict in (
        ("10.1.255.255", 443, True),
        ("10.1.0.1", 8443, False),
        ("10.2.0.0", 443, False),
        ("fd00::1", 5432, True),
        ("fe80::1", 443, False),
        ("192.0.2.7", 2121, True),
        ("8.8.8.8", 2121, False),
    ):
        assert is_open(ip, port, Purpose.WEBHOOK, allow) == verdict
    assert not is_open("fd00::1%eth0", 443, Purpose.WEBHOOK, allow)


@pytest.mark.parametrize(
    "entry",
    ["", "10.0.0.0/8", "10.0.0.1/8:443", "10.0.0.0/33:443", "10.0.0.0/8:0", "10.0.0.0/8:65536", "10.0.0.0/8:", "a:1"],
)
def test_an_entry_that_says_something_else_is_refused(entry):
    with pytest.raises(Invalid) as refused:
        parse_allow([entry])
    assert refused.value.code == "allow_list_invalid"


@pytest.mark.threat("T7", "T9")
@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://017700000001/",
        "https://127.0.0.01/",
        "https://127.0.0.1./",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://localhost./",
        "https://a@127.0.0.1/",
        "https://a:b@host.example/",
        "https://@host.example/",
        "https://evil\\@127.0.0.1/",
        "https://host.example\\a",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://[host.example]/",
        "https://[]/",
        "https://::1/",
        "https:///x",
        "https://ex。ample/",
        "https://\u212aelvin.example/",  # KELVIN SIGN, which lower-cases to k
        "https://bücher.example/",
        "https://host_name.example/",
        "https://-a.example/",
        "https://a-.example/",
        "https://a..example/",
        "https://.example/",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 127}example/",
        "https://host.example/#",
        "https://host.example/#a",
        "https://host.example/a b",
        "https://host.example/é",
        "https://host.example/%",
        "https://host.example/%zz",
        "https://host.example/\r\nX: y",
        "https://host.example/\n",
        "https://host.example/\0",
        " https://host.example/",
        "https://host.example ",
        "https://host.example:/",
        "https://host.example:0/",
        "https://host.example:0443/",
        "https://host.example:+443/",
        "https://host.example:65536/",
        "https://host.example:5432/",
        "https://x:5432/",
        "https://host.example:80/",
        "http://host.example/",
        "http://host.example:443/",
        "ftp://host.example/",
        "file:///etc/passwd",
        "//host.example/",
        "host.example",
        "https:host.example",
        "",
        "https://host.example/" + "a" * 2048,
    ],
)
def test_odd_urls_are_refused(url):
    with pytest.raises(Invalid) as refused:
        parse_url(url, NOTHING)
    assert refused.value.code == "url_invalid"
    assert url not in refused.value.detail or url == ""


@pytest.mark.parametrize(
    ("url", "normal", "host", "port"),
    [
        ("https://host.example", "https://host.example", "host.example", 443),
        ("HTTPS://Host.Example:8443/A?b=C", "https://host.example:8443/A?b=C", "host.example", 8443),
        ("https://host.example?a=%2F", "https://host.example?a=%2F", "host.example", 443),
        ("https://xn--bcher-kva.example:443/", "https://xn--bcher-kva.example:443/", "xn--bcher-kva.example", 443),
        ("https://1.2.3.4/x", "https://1.2.3.4/x", "1.2.3.4", 443),
        ("https://[2606:4700:0:0::1]/x", "https://[2606:4700::1]/x", "2606:4700::1", 443),
        ("https://3com.example/", "https://3com.example/", "3com.example", 443),
    ],
)
def test_a_plain_url_comes_back_in_normal_form(url, normal, host, port):
    target = parse_url(url, NOTHING)
    assert (target.url, target.host, target.port, target.purpose) == (normal, host, port, Purpose.WEBHOOK)


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "localhost.", "fe80::1%eth0", "a b", "", "é", "a/b", "[::1]", "1.2.3.4:21"]
)
@pytest.mark.threat("T7")
async def test_odd_hosts_are_refused_before_they_are_looked_up(host):
    answers = Answers(["8.8.8.8"])
    with pytest.raises(Invalid):
        await resolve(host, 21, purpose=Purpose.FTP, allow=LOOPBACK, resolver=answers)
    assert answers.asked == []


@given(st.text())
def test_a_host_is_refused_or_has_one_normal_form(text):
    try:
        host = parse_host(text)
    except Invalid:
        return
    assert parse_host(host) == host
    assert host.isascii()


class Answers:
    """A resolver that gives its answers one after the other and notes what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def __call__(self, host, port):
        self.asked.append((host, port))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_name_gives_all_its_addresses_once_each():
    answers = Answers(["8.8.8.8", "2606:4700::1", "8.8.8.8", "::ffff:8.8.8.8"])
    found = await resolve("Host.Example", 21, purpose=Purpose.FTP, allow=NOTHING, resolver=answers)
    assert found == ResolvedAddress("host.example", 21, ("8.8.8.8", "2606:4700::1"))
    assert answers.asked == [("host.example", 21)]


@pytest.mark.threat("T2", "T3")
@pytest.mark.parametrize(
    "answer", [["10.0.0.5"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"], ["fe80::1%eth0"]]
)
async def test_one_denied_address_denies_the_name(answer):
    with pytest.raises(Forbidden) as denied:
        await resolve("a.test", 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=Answers(answer))
    assert denied.value.code == "egress_denied"
    assert not any(ip in denied.value.detail for ip in answer)


@pytest.mark.threat("T4")
async def test_a_name_is_looked_up_once_for_each_attempt_and_checked_each_time():
    answers = Answers(["8.8.8.8"], ["127.0.0.1"])
    first = await resolve("a.test", 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=answers)
    assert first.addresses == ("8.8.8.8",)
    assert len(answers.asked) == 1
    with pytest.raises(Forbidden):
        await resolve("a.test", 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=answers)
    assert len(answers.asked) == 2


@pytest.mark.parametrize("answer", [[], socket.gaierror(-2, "unknown"), OSError("network"), TimeoutError()])
async def test_a_name_without_an_answer_is_worth_a_retry(answer):
    with pytest.raises(Unavailable) as failed:
        await resolve("a.test", 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=Answers(answer))
    assert failed.value.code == "dns_failed"


async def test_a_resolver_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("ingestd.egress._DNS_SECONDS", 0.01)

    async def never(host, port):
        await asyncio.Event().wait()

    with pytest.raises(Unavailable):
        await resolve("a.test", 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=never)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700:0::1"])
async def test_an_address_is_checked_without_a_look_up(host):
    answers = Answers()
    found = await resolve(host, 443, purpose=Purpose.WEBHOOK, allow=NOTHING, resolver=answers)
    assert found.addresses == (str(ip_address(host)),)
    assert answers.asked == []


async def test_plain_http_goes_only_where_the_operator_allows_it():
    target = parse_url("http://hook.example:8080/x", LOOPBACK)
    assert (target.port, target.purpose) == (8080, Purpose.WEBHOOK_PLAIN)
    for answer, verdict in ((["127.0.0.1"], True), (["8.8.8.8"], False), (["127.0.0.1", "8.8.8.8"], False)):
        try:
            found = await resolve(
                target.host, target.port, purpose=target.purpose, allow=LOOPBACK, resolver=Answers(answer)
            )
        except Forbidden:
            assert not verdict
        else:
            assert verdict
            assert found.addresses == tuple(answer)
    assert parse_url("http://hook.example", parse_allow(["10.0.0.0/8:80"])).port == 80
    with pytest.raises(Invalid):
        parse_url("http://hook.example", parse_allow(["10.0.0.0/8:8080"]))


async def test_plain_http_on_a_tls_port_needs_the_operator_too():
    allow = parse_allow(["10.0.0.0/8:443"])
    target = parse_url("http://hook.example:443/", allow)
    with pytest.raises(Forbidden):
        await resolve(target.host, 443, purpose=target.purpose, allow=allow, resolver=Answers(["8.8.8.8"]))


async def test_the_systems_resolver_finds_this_machine():
    assert set(await system_resolver("localhost", 443)) <= {"127.0.0.1", "::1"}
    found = await resolve("localhost", 4443, purpose=Purpose.WEBHOOK, allow=LOOPBACK)
    assert found.addresses


@pytest.mark.threat("T14")
async def test_names_that_are_never_answered_hold_up_no_other_name_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    end, look_up = threading.Event(), socket.getaddrinfo

    def slowly(host: str, *args: object, **more: object) -> list[tuple[object, ...]]:
        if host == "silent.test":
            end.wait()
        return look_up("127.0.0.1", *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    silent = [asyncio.create_task(system_resolver("silent.test", 443)) for _ in range(40)]
    try:
        assert await system_resolver("live.test", 443) == ["127.0.0.1"]
        assert await asyncio.to_thread(int) == 0
    finally:
        end.set()
    await asyncio.gather(*silent)
