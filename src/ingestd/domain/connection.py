"""Connections: somebody else's FTP or SFTP server, as an account has it configured (S17 to S19, D3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import load_der_x509_certificate
from pydantic import BaseModel

from ingestd.domain import import_key
from ingestd.domain.column import is_one_line
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.moment import Moment

MAX_CONNECTIONS: Final = 5
"""Connections of one account (S18)."""

MAX_PATH: Final = 1024
MAX_HOST_KEYS: Final = 8
CERTIFICATE: Final = "x509"
"""The algorithm of a host key that is the certificate of an FTPS server."""

PLAIN_WARNING: Final = "FTP without TLS sends the password and the files for all to read. Use FTPS or SFTP if you can."


class Kind(StrEnum):
    """How a server is spoken to; the first is in the clear, and never what another falls back to (T131)."""

    FTP = "ftp"
    FTPS_EXPLICIT = "ftps_explicit"
    FTPS_IMPLICIT = "ftps_implicit"
    SFTP = "sftp"

    @property
    def port(self) -> int:
        """The usual port."""
        return {Kind.FTPS_IMPLICIT: 990, Kind.SFTP: 22}.get(self, 21)

    @property
    def has_tls(self) -> bool:
        """Whether the server shows a certificate."""
        return self in {Kind.FTPS_EXPLICIT, Kind.FTPS_IMPLICIT}


class Auth(StrEnum):
    """What the service shows the server to be let in."""

    PASSWORD = "password"  # noqa: S105 -- the word, not one
    PRIVATE_KEY = "private_key"


@dataclass(frozen=True, slots=True)
class HostKey:
    """By what a server is known again: an SSH host key, or of FTPS the certificate, algorithm `x509`."""

    algorithm: str
    blob: bytes

    @property
    def line(self) -> str:
        """The key as one line, as `parse_host_key` reads it."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint as OpenSSH or, of a certificate, OpenSSL shows it."""
        if self.algorithm == CERTIFICATE:
            return hashlib.sha256(self.blob).digest().hex(":").upper()
        return import_key.fingerprint(self.blob)


class HostKeyView(BaseModel):
    """A key or certificate of a server; `line` is what pins it."""

    algorithm: str
    fingerprint: str
    line: str


class ConnectionView(BaseModel):
    """A connection, without its secret.

    `public_key` is the half of the private key that the server must know. `changed_host_key` is one that the server
    showed in place of the pinned ones: nothing is fetched until keys are pinned anew.
    """

    id: str
    name: str
    kind: Kind
    host: str
    port: int
    root: str
    username: str
    auth: Auth
    public_key: str | None
    host_keys: list[HostKeyView]
    changed_host_key: HostKeyView | None
    host_key_changed_at: Moment | None
    warnings: list[str]
    created_at: Moment
    updated_at: Moment


@dataclass(frozen=True, slots=True)
class Login:
    """A secret that fits its kind of server: a password, or a private key and the line of its public half."""

    auth: Auth
    secret: str = field(repr=False)
    public_key: str | None = None


def view_of_key(key: HostKey) -> HostKeyView:
    """A key as it is shown."""
    return HostKeyView(algorithm=key.algorithm, fingerprint=key.fingerprint, line=key.line)


def parse_host_key(line: str, kind: Kind) -> HostKey:
    """Read what `HostKey.line` wrote, or raise Invalid "host_key_invalid" where it is no key of such a server."""
    algorithm, _, word = line.strip().partition(" ")
    if kind is Kind.FTP:
        raise _host_key_invalid("A server without TLS has no key to be known by.")
    try:
        blob = base64.b64decode(word.partition(" ")[0], validate=True)
        if kind is Kind.SFTP:
            serialization.load_ssh_public_key(line.strip().encode())
        else:
            load_der_x509_certificate(blob if algorithm == CERTIFICATE else b"")
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        told = f"Give `{CERTIFICATE}` and the certificate's DER bytes in base64, as the scan shows it."
        if kind is Kind.SFTP:
            told = "Give one OpenSSH public key line, as the scan or a file of known hosts shows it, without the host."
        raise _host_key_invalid(told) from None
    return HostKey(algorithm, blob)


def parse_login(kind: Kind, *, password: str | None, private_key: str | None) -> Login:
    """Return the secret that was given for a kind of server, or raise Invalid saying what is wrong with it."""
    if password is not None and private_key is None:
        if not password.isprintable():
            raise _secret_invalid("/body/password", "A password may not hold control characters.")
        return Login(Auth.PASSWORD, password)
    if private_key is None or password is not None:
        raise _secret_invalid("/body/password", "Send a password, or for SFTP a private key in its place.")
    if kind is not Kind.SFTP:
        raise _secret_invalid("/body/private_key", "Only SFTP knows private keys; send a password.")
    return _parse_private_key(private_key)


def _parse_private_key(text: str) -> Login:
    content = text.strip().encode() + b"\n"
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in content
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    pointer = "/body/private_key"
    try:
        key = load(content, None)
    except TypeError:
        # Unlocking takes as long as the key's own text says: that is no work to do for whoever sends one.
        told = "The key has a passphrase. Take it off a copy (ssh-keygen -p -N '' -f copy): the service seals the key."
        raise _secret_invalid(pointer, told) from None
    except (ValueError, UnsupportedAlgorithm):
        told = "The text is no private key in OpenSSH's or PEM form."
        raise _secret_invalid(pointer, told) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _secret_invalid(pointer, "This kind of key is not accepted; use Ed25519, ECDSA or RSA.")
    unlocked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Login(Auth.PRIVATE_KEY, unlocked.decode(), public.decode())


def parse_root(text: str) -> str:
    """Return the root folder in normal form, or raise Invalid "path_invalid".

    `/data/in` begins at the server's root, `demo_apac/demo_master` where the login leads to; empty is that very folder.
    """
    parts = "/".join(_parts(text))
    return f"/{parts}" if text.startswith("/") else parts


def parse_path(text: str) -> str:
    """Return a path below the root folder in normal form, without slashes at its ends, or raise Invalid "path_invalid".

    It is always taken from the root folder, with a leading slash or without (S19): `/demo_path/` is `demo_path`.
    """
    return "/".join(_parts(text))


def _parts(text: str) -> list[str]:
    if "://" in text:
        raise _path_invalid("A path is no URL: leave out the server and the root folder.")
    if len(text) > MAX_PATH:
        raise _path_invalid(f"A path has at most {MAX_PATH} characters.")
    if text.startswith("//") or "\\" in text or text[1:2] == ":":
        raise _path_invalid("Write the path with single slashes, and without a drive.")
    parts = [part for part in text.split("/") if part]
    for part in parts:
        if part in {".", "..", "~"}:
            raise _path_invalid(f"{part!r} may not stand in a path: it begins at the root folder and leads down only.")
        if "*" in part or "?" in part:
            raise _path_invalid("Wildcards are not needed: of a folder the newest matching file is taken.")
        if not is_one_line(part):
            raise _path_invalid("A path may not hold control characters.")
    return parts


def _host_key_invalid(detail: str) -> Invalid:
    return Invalid(detail, code="host_key_invalid", problems=(Problem("/body/host_keys", "host_key", detail),))


def _secret_invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(
        "The connection's secret does not fit.", code="secret_invalid", problems=(Problem(pointer, "secret", detail),)
    )


def _path_invalid(detail: str) -> Invalid:
    return Invalid(detail, code="path_invalid")
