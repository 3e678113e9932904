"""Manifests that come through the API: what they say is looked at before they are submitted."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.blobs.store import BlobInfo
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.file_name import DATA_SUFFIX, safe_name
from ingestd.domain.manifest import MAX_BYTES, Manifest, parse
from ingestd.ingest.intake import Intake
from ingestd.ingest.pairing import read_manifest
from ingestd.store import accounts, files
from ingestd.store.files import File

UNFIT_NAME: Final = Problem(
    "/fileName",
    "name",
    f"No data file can be called so: its name ends in {DATA_SUFFIX}, and has up to 200 letters, digits, spaces and "
    "_ . ( ) - , beginning with a letter, a digit or _.",
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a manifest says, or null; what is wrong with it; and the file that it would take now."""

    parsed: Manifest | None
    problems: tuple[Problem, ...]
    file: File | None


async def examine(session: AsyncSession, account_id: UUID, text: bytes) -> Examined:
    """Look at a manifest as if it were submitted now."""
    account = await accounts.get(session, account_id)
    parsed = _parsed(text)
    problems: tuple[Problem, ...] = ()
    name = safe_name(parsed.file_name) if parsed else None
    if parsed is not None and (name is None or not name.lower().endswith(DATA_SUFFIX)):
        problems = (UNFIT_NAME,)
    try:
        await read_manifest(session, account, text)
    except Invalid as refusal:
        problems += refusal.problems
    file = None if problems or name is None else await files.find_available(session, account_id, name, lock=False)
    return Examined(parsed, problems, file)


def _parsed(text: bytes) -> Manifest | None:
    try:
        return parse(text)
    except Invalid:
        return None


async def keep(intake: Intake, account_id: UUID, text: bytes) -> BlobInfo:
    """Seal and store the text of a manifest; durable when this returns."""
    incoming = await intake.begin(account_id)
    try:
        await incoming.write(text)
        return await incoming.commit()
    finally:
        incoming.abort()


async def text_of(intake: Intake, account_id: UUID, blob: str) -> bytes:
    """The text of a manifest, or enough of it to see that it is too large."""
    keys = await intake.keys(account_id)

    def read() -> bytes:
        with intake.blobs.open(blob, keys) as file:
            return io.BufferedReader(cast("io.RawIOBase", file)).read(MAX_BYTES + 1)

    return await asyncio.to_thread(read)
