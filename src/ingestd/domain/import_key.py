"""SSH public keys that open the SFTP door: what is accepted, and how a key is named (S82, T33)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ingestd.domain.errors import Invalid

MAX_TEXT: Final = 16 * 1024
MIN_RSA_BITS: Final = 3072
MAX_RSA_BITS: Final = 8192
_ALGORITHMS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that may open the door: its algorithm, its blob as one base64 word, its SHA-256 fingerprint."""

    algorithm: str
    blob: str
    fingerprint: str

    @property
    def line(self) -> str:
        """The key as one line of an `authorized_keys` file, without comment."""
        return f"{self.algorithm} {self.blob}"


def parse_public_key(text: str) -> PublicKey:
    """Read one OpenSSH public key line, or raise Invalid (code `public_key_invalid`) saying what is wrong with it."""
    if len(text) > MAX_TEXT:
        raise _invalid("The text is far longer than a public key.")
    if "PRIVATE KEY" in text:
        raise _invalid("This is a private key. Never send it to anyone; paste the file that ends in .pub.")
    if "-----BEGIN" in text or "---- BEGIN" in text:
        raise _invalid("Paste the key in OpenSSH's one-line form (the file that ends in .pub).")
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        raise _invalid("Give exactly one key, on one line.")
    words = lines[0].split()
    if len(words) < 2 or words[0] not in _ALGORITHMS:
        if len(words) > 2 and any(word in _ALGORITHMS for word in words):
            raise _invalid("The key may not carry options; it begins with its algorithm.")
        raise _invalid(f"The key begins with none of {', '.join(_ALGORITHMS)}.")
    return _checked(words[0], words[1])


def fingerprint(blob: bytes) -> str:
    """The SHA-256 fingerprint of a key's blob as OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _invalid(detail: str) -> Invalid:
    return Invalid(detail, code="public_key_invalid")


def _checked(algorithm: str, word: str) -> PublicKey:
    try:
        blob = base64.b64decode(word, validate=True)
        (size,) = struct.unpack_from(">I", blob)
        inner = blob[4 : 4 + size].decode("ascii")
        if inner != algorithm:
            raise _invalid("The key's text and its algorithm do not belong together.")
        key = load_ssh_public_key(f"{algorithm} {word}".encode())
    except (binascii.Error, struct.error, ValueError, UnsupportedAlgorithm):
        raise _invalid("The key's base64 text is damaged; copy the whole line again.") from None
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise _invalid(f"An RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {key.key_size}.")
        if key.public_numbers().e < 65537:
            raise _invalid("The RSA key's exponent is too small.")
    elif not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise _invalid("This kind of key is not accepted; use Ed25519.")
    return PublicKey(algorithm, base64.b64encode(blob).decode(), fingerprint(blob))
