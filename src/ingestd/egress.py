"""Which addresses we may connect to on an account's behalf: one rule for webhooks, FTP, SFTP and SMTP (P8, T1 to T9).

A host is resolved once, each of its addresses is checked, and the caller connects to the addresses it is given, never
to the name. The operator's allow list (`10.1.0.0/16:443`, `127.0.0.0/8:*`) opens what is otherwise denied; accounts
cannot change it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from ingestd.domain.errors import Forbidden, Invalid, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Resolver = Callable[[str, int], Awaitable[Iterable[str]]]
    """Gives the addresses of a host and port as texts; raises OSError where there are none."""


class Purpose(StrEnum):
    """What a connection is for, which decides the ports it may use."""

    WEBHOOK = "webhook"
    WEBHOOK_PLAIN = "webhook_plain"  # http without TLS: no port of its own, so only where the operator allows it
    FTP = "ftp"
    SFTP = "sftp"
    SMTP = "smtp"


_PORTS = {
    Purpose.WEBHOOK: {443, 8443},
    Purpose.WEBHOOK_PLAIN: set[int](),
    Purpose.FTP: {21, 990},
    Purpose.SFTP: {22, 2022, 2222},
    Purpose.SMTP: {25, 465, 587},
}

_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is a metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, though a public address
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # 192.0.0.192 is a metadata service
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
    )
)
# Of IPv6 only the public unicast space is open. Outside it lie ::1, the IPv4 embeddings ::/96 and 64:ff9b::/96,
# 100::/64, 5f00::/16, fc00::/7 (fd00:ec2::254 is a metadata service), fe80::/10, fec0::/10 and ff00::/8.
_PUBLIC_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other embeddings
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_INTERNAL_NAMES = ("localhost", "local", "internal", "arpa")  # names that are not the public DNS's to answer

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<rest>(?:[/?](?:[a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*)?)",
    re.IGNORECASE | re.ASCII,
)
_DNS_SECONDS = 10
_LOOK_UPS = ThreadPoolExecutor(64, "look-up")
"""Not the threads that everything else runs in: a name whose servers are silent holds one up for long (T14)."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of the operator's allow list: a network and a port, or every port."""

    network: IPv4Network | IPv6Network
    port: int | None

    def covers(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Tell whether the entry opens this address and port."""
        return self.port in {None, port} and address in self.network


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL: itself in normal form, and what `resolve` wants to know of it."""

    url: str
    host: str
    port: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """Where to connect for a host and port: its addresses, all checked, in the resolver's order; never empty."""

    host: str
    port: int
    addresses: tuple[str, ...]


def parse_allow(entries: Iterable[str]) -> tuple[Allowed, ...]:
    """Return the allow list of texts such as `10.1.0.0/16:443`, `fd00::/8:*`, or raise Invalid "allow_list_invalid"."""
    return tuple(_parse_entry(entry) for entry in entries)


def parse_host(host: str) -> str:
    """Return the host in normal form, an address or a DNS name in lower case, or raise Invalid "url_invalid" (T7).

    International names come in their ASCII form (`xn--…`). What looks like a number must be an address in its usual
    spelling.
    """
    name = host.lower() if host.isascii() else ""
    if ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            address = ip_address(name)
        except ValueError:
            address = None
        if address is None or "%" in name:
            detail = "The host is a name or an IP address alone, as sftp.example.org: no URL, no port, no zone."
            raise Invalid(detail, code="url_invalid")
        return str(address)
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise Invalid(
            "The host must be an address or a DNS name of letters, digits and hyphens, without a final dot; "
            "write an international name in its ASCII form (xn--…).",
            code="url_invalid",
        )
    return name


def parse_url(url: str, allow: tuple[Allowed, ...]) -> Target:
    """Return the webhook's URL in parts, or raise Invalid "url_invalid" (T7, T9).

    https on port 443 or 8443. Other ports, and http, pass only where the allow list has the port for some network;
    whether the host is in such a network is seen by `resolve`.
    """
    match = _URL.fullmatch(url) if len(url) <= 2048 else None
    if match is None:
        raise Invalid(
            "The URL must read https://host[:port][/path][?query], without user, fragment, space or non-ASCII letter.",
            code="url_invalid",
        )
    scheme, written = match["scheme"].lower(), match["host"]
    host = parse_host(written.strip("[]"))
    if written.startswith("[") != (":" in host):
        raise Invalid("An IPv6 address, and nothing else, stands in brackets.", code="url_invalid")
    purpose = Purpose.WEBHOOK if scheme == "https" else Purpose.WEBHOOK_PLAIN
    port = int(match["port"] or (443 if scheme == "https" else 80))
    usual = port in _PORTS[purpose]
    if port > 65535 or not (usual or any(entry.port in {None, port} for entry in allow)):
        raise Invalid("The URL must be https on port 443 or 8443.", code="url_invalid")
    authority = f"[{host}]" if ":" in host else host
    explicit = f":{match['port']}" if match["port"] else ""
    return Target(f"{scheme}://{authority}{explicit}{match['rest']}", host, port, purpose)


async def resolve(
    host: str, port: int, *, purpose: Purpose, allow: tuple[Allowed, ...], resolver: Resolver | None = None
) -> ResolvedAddress:
    """Look the host up once, check all its addresses, return them; called anew for each attempt (T2, T3, T4).

    One denied address denies the host: Forbidden "egress_denied". A name that is internal by its form
    (`metadata.google.internal`) is denied wherever it leads, unless the allow list covers it. Invalid "url_invalid":
    the host's spelling. Unavailable "dns_failed": no answer within 10 s.
    """
    name = parse_host(host)
    if ":" in name or name.rpartition(".")[2].isdigit():
        found = [name]
    else:
        found = await _look_up(resolver or system_resolver, name, port)
    internal = name.rpartition(".")[2] in _INTERNAL_NAMES
    checked = (check_address(ip, port, purpose=purpose, allow=allow, internal=internal) for ip in found)
    return ResolvedAddress(name, port, tuple(dict.fromkeys(checked)))


async def system_resolver(host: str, port: int) -> list[str]:
    """Return the host's addresses as the operating system gives them."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    answers = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    return [str(sockaddr[0]) for *_, sockaddr in answers]


async def _look_up(resolver: Resolver, name: str, port: int) -> list[str]:
    try:
        async with asyncio.timeout(_DNS_SECONDS):
            found = list(await resolver(name, port))
    except (OSError, TimeoutError) as error:
        raise Unavailable("The host's address could not be found.", code="dns_failed") from error
    if not found:
        raise Unavailable("The host has no address.", code="dns_failed")
    return found


async def connect(address: str, port: int, *, seconds: float) -> socket.socket:
    """A socket that is connected to an address which `resolve` gave; OSError, TimeoutError among them."""
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    opened.setblocking(False)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except BaseException:
        opened.close()
        raise
    return opened


def check_address(ip: str, port: int, *, purpose: Purpose, allow: tuple[Allowed, ...], internal: bool = False) -> str:
    """Return the address to connect to, or raise Forbidden "egress_denied" (T1, T6, T8, T9).

    What the allow list covers is open. Else the port must be one of the purpose's, and the address public and not
    that of an `internal` name. An IPv4 address mapped into IPv6 is judged, and connected to, as what it is.
    """
    address = ip_address(ip)
    zoned = "%" in ip
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    listed = any(entry.covers(address, port) for entry in allow)
    usual = port in _PORTS[purpose] and _is_public(address) and not internal
    if zoned or not (listed or usual):
        raise Forbidden("We do not connect to this address and port.", code="egress_denied")
    return str(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _DENIED_V6)


def _parse_entry(entry: str) -> Allowed:
    network, _, port = entry.strip().rpartition(":")
    try:
        allowed = Allowed(ip_network(network), None if port == "*" else int(port))
    except ValueError:
        allowed = None
    if allowed is None or (allowed.port is not None and not 1 <= allowed.port <= 65535):
        detail = "An entry of INGESTD_EGRESS_ALLOW reads network:port, as 10.1.0.0/16:443."
        raise Invalid(detail, code="allow_list_invalid")
    return allowed
