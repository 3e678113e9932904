"""The keys of one account, in use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import tink
from tink import aead, daead, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, aes_siv_pb2, tink_pb2

from ingestd.domain.personal import SEALED, canonical_of, is_sealed
from ingestd.keyring.siv import Bytes, Siv
from ingestd.keyring.stream import SealBroken, Sealer, open_stream

if TYPE_CHECKING:
    from tink.proto.tink_pb2 import KeyTemplate

aead.register()
daead.register()

INDEX_BYTES = 32
_SEGMENT_BYTES = 128 * 1024  # Tink keeps some for each open stream, of which a check has hundreds; a megabyte is slower


def _stream_template() -> KeyTemplate:
    """Tink's template for streams with smaller segments, whose size stands in each key that is made of it."""
    template = tink_pb2.KeyTemplate()
    template.CopyFrom(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    form = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    form.params.ciphertext_segment_size = _SEGMENT_BYTES
    template.value = form.SerializeToString()
    return template


_TEMPLATES = {
    "values": daead.deterministic_aead_key_templates.AES256_SIV,
    "blobs": _stream_template(),
    "secrets": aead.aead_key_templates.AES256_GCM,
}


class AccountKeys:
    """An account's keys, open. Thread-safe; cannot be pickled, never printed."""

    def __init__(self, data: bytes, index: bytes) -> None:
        keysets = {name: parse_keyset(keyset) for name, keyset in _keysets(data).items()}
        self._data = data
        self._index = index
        self._values = keysets["values"].primitive(daead.DeterministicAead)
        newest = keysets["values"].keyset_info().primary_key_id
        self._mark = b"\x01" + newest.to_bytes(4, "big")  # how Tink marks the key that sealed
        self._blobs = keysets["blobs"].primitive(streaming_aead.StreamingAead)
        self._secrets = keysets["secrets"].primitive(aead.Aead)

    def __repr__(self) -> str:
        return "AccountKeys()"

    @property
    def index_key(self) -> str:
        """The 256-bit key of the ids and hashes of people, as 64 hexadecimal digits."""
        return self._index.hex()

    def to_worker(self) -> bytes:
        """Return the keys in the clear, for the memory of one of our own processes; never for a disk or a log."""
        return self._index + self._data

    @classmethod
    def from_worker(cls, packed: bytes) -> AccountKeys:
        """Return the keys that `to_worker` packed."""
        return cls(data=packed[INDEX_BYTES:], index=packed[:INDEX_BYTES])

    def seal_value(self, attribute: str, text: str) -> str:
        """Return the value's token (base64), equal for equal values of one attribute: searchable (D13, T113)."""
        return base64.urlsafe_b64encode(self.seal_values(attribute, [text.encode()])[0]).decode()

    def seal_anew(self, attribute: str, value: Any) -> Any:
        """Return a stored value, which is no list, sealed by the newest key: it may be plain, or under an older.

        What does not open stays as it is, since nobody can ever have read it (T112).
        """
        if not is_sealed(value):
            return {SEALED: self.seal_value(attribute, canonical_of(value))}
        if self.is_newest(value[SEALED]):
            return value
        try:
            return {SEALED: self.seal_value(attribute, self.open_value(attribute, value[SEALED]))}
        except SealBroken:
            return value

    def seal_values(self, attribute: str, texts: Iterable[bytes]) -> list[bytes]:
        """Return the tokens of many values in UTF-8, in their order, as bytes: they are kept as base64, URL-safe."""
        place, encrypt = attribute.encode(), self._values.encrypt_deterministically
        return [encrypt(text, place) for text in texts]

    def seal_alike(self, attribute: str, texts: Bytes) -> Bytes:
        """Return the tokens of texts of one length, the rows of a matrix, as `seal_values` would; none is empty."""
        tokens = self._siv.seal(attribute.encode(), texts)
        mark = np.broadcast_to(np.frombuffer(self._mark, np.uint8), (len(texts), len(self._mark)))
        return np.hstack([mark, tokens])

    @cached_property
    def _siv(self) -> Siv:
        keyset = tink_pb2.Keyset.FromString(_keysets(self._data)["values"])
        newest = next(key for key in keyset.key if key.key_id == keyset.primary_key_id)
        return Siv(aes_siv_pb2.AesSivKey.FromString(newest.key_data.value).key_value)

    def tokens(self, attribute: str, text: str) -> list[str]:
        """Return every token that a stored value can have: one for each key, several while keys are rotated."""
        place, found = attribute.encode(), []
        for handle in one_by_one(_keysets(self._data)["values"]):
            sealed = handle.primitive(daead.DeterministicAead).encrypt_deterministically(text.encode(), place)
            found.append(base64.urlsafe_b64encode(sealed).decode())
        return found

    def is_newest(self, token: str) -> bool:
        """Whether a token was made with the key that seals now."""
        return base64.urlsafe_b64decode(token[:8]).startswith(self._mark)

    def open_value(self, attribute: str, token: str) -> str:
        """Return the value behind a token of the attribute."""
        try:
            sealed = base64.b64decode(token, altchars=b"-_", validate=True)
            return cast("str", self._values.decrypt_deterministically(sealed, attribute.encode()).decode())
        except (tink.TinkError, ValueError):
            raise SealBroken from None

    def seal_secret(self, context: str, plain: bytes) -> bytes:
        """Return a secret (a password, a signing key) sealed for the place that `context` names (T110, T112)."""
        return cast("bytes", self._secrets.encrypt(plain, context.encode()))

    def open_secret(self, context: str, sealed: bytes) -> bytes:
        """Return the secret sealed for this context."""
        try:
            return cast("bytes", self._secrets.decrypt(sealed, context.encode()))
        except tink.TinkError:
            raise SealBroken from None

    def mac(self, purpose: str, message: bytes) -> bytes:
        """Return the code (HMAC-SHA256) by which the account knows again what it has handed out for this purpose."""
        key = hmac.digest(self._index, f"mac/{purpose}".encode(), hashlib.sha256)
        return hmac.digest(key, message, hashlib.sha256)

    def sealer(self, context: str) -> Sealer:
        """Return a sealer of one stream of any length, bound to the context (a blob's name)."""
        return Sealer(self._blobs, context)

    def open_stream(self, source: BinaryIO, context: str) -> BinaryIO:
        """Return the plain bytes of a stream sealed for this context: see `stream.open_stream`."""
        return open_stream(self._blobs, source, context)


def new_data_keys() -> bytes:
    """Return fresh data keys in the clear: the three keysets as JSON."""
    return _packed({name: new_keyset(template) for name, template in _TEMPLATES.items()})


def add_data_keys(data: bytes) -> bytes:
    """Return data keys of which each keyset has one more key, which seals from now on; the older ones still open."""
    return _packed({name: add_key(keyset, _TEMPLATES[name]) for name, keyset in _keysets(data).items()})


def drop_old_value_keys(data: bytes) -> bytes:
    """Return data keys with the newest key for values only, for when all of them have been sealed again.

    Streams and secrets are not sealed again, so their older keys stay.
    """
    keysets = _keysets(data)
    return _packed(keysets | {"values": drop_old_keys(keysets["values"])})


def add_key(keyset: bytes, template: KeyTemplate) -> bytes:
    """Return a keyset with one more key, its primary."""
    old, new = tink_pb2.Keyset.FromString(keyset), tink_pb2.Keyset.FromString(new_keyset(template))
    new.key.extend(old.key)
    return cast("bytes", new.SerializeToString())


def one_by_one(keyset: bytes) -> Iterator[tink.KeysetHandle]:
    """Give each key of a keyset as a keyset of its own."""
    for key in tink_pb2.Keyset.FromString(keyset).key:
        alone = tink_pb2.Keyset(primary_key_id=key.key_id)
        alone.key.append(key)
        yield parse_keyset(alone.SerializeToString())


def drop_old_keys(keyset: bytes) -> bytes:
    """Return a keyset with its primary key only."""
    old = tink_pb2.Keyset.FromString(keyset)
    newest = tink_pb2.Keyset(primary_key_id=old.primary_key_id)
    newest.key.extend(key for key in old.key if key.key_id == old.primary_key_id)
    return cast("bytes", newest.SerializeToString())


def _keysets(data: bytes) -> dict[str, bytes]:
    return {name: base64.b64decode(keyset) for name, keyset in json.loads(data).items()}


def _packed(keysets: dict[str, bytes]) -> bytes:
    return json.dumps({name: base64.b64encode(keyset).decode() for name, keyset in keysets.items()}).encode()


def new_keyset(template: KeyTemplate) -> bytes:
    """Return a fresh keyset in the clear."""
    handle = tink.new_keyset_handle(template)
    return cast("bytes", tink.proto_keyset_format.serialize(handle, secret_key_access.TOKEN))


def parse_keyset(keyset: bytes) -> tink.KeysetHandle:
    """Return the handle of a keyset in the clear; TinkError if it is none."""
    return tink.proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
