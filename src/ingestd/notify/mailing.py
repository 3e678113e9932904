"""Messages, as the outbox sends them: each is written as a letter and handed to the mail server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.blobs.store import BlobStore
from ingestd.domain.notice import NoticeType
from ingestd.domain.recipient import ascii_address, confirmation_code
from ingestd.keyring import AccountKeys, SealedKeys
from ingestd.metrics import Metrics
from ingestd.notify.letters import Attachment, House, letter, manifest_name, problems_file
from ingestd.notify.outbox import next_attempt_at
from ingestd.notify.smtp import MailCode, MailServer, Result
from ingestd.store import accounts, attributes, ingestions, messages, outgoing, recipients, runs
from ingestd.store.engine import Sessions, new_id, transaction
from ingestd.store.messages import Claimed, Message
from ingestd.store.orphans import MAILED
from ingestd.store.outgoing import Ended, Outgoing

_TAKEN: Final = {MailCode.DELIVERED, MailCode.KEPT}
_WITH_FILES: Final = {NoticeType.INGESTION_COMPLETED, NoticeType.INGESTION_FAILED}

log = telemetry.logger(__name__)


@dataclass(kw_only=True)
class Mailing:
    """The channel of mail. Without a `server` each mail is kept as a sealed blob.

    `keys` opens an account's keys; `jitter` a random number from 0 to 1.
    """

    sessions: Sessions
    server: MailServer | None
    house: House
    attachment_bytes: int
    blobs: BlobStore
    keys: Callable[[UUID, SealedKeys], AccountKeys]
    metrics: Metrics
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    slots: int = 8
    model: type[Outgoing] = Message

    async def claim(self, session: AsyncSession, *, room: int, now: datetime) -> Sequence[Claimed]:
        """At most `room` messages that are due."""
        return await messages.claim(session, room=room, now=now)

    async def send(self, claimed: Claimed) -> Ended[Claimed]:
        """Hand a claimed message over once. Whatever the server does, something comes of it."""
        result = await self._send(claimed)
        self.metrics.messages.labels(result.code).inc()
        log.info("mail_attempted", message=claimed.id, code=result.code, status=result.status, ms=result.ms)
        now, again_at = self.clock(), None
        if result.code is not MailCode.REFUSED:
            again_at = next_attempt_at(claimed.failures + 1, now=now, jitter=self.jitter())
        attempt = {
            "at": now.isoformat(),
            "code": result.code,
            "status": result.status,
            "answer": result.answer,
            "ms": result.ms,
        }
        return Ended(claimed, attempt, delivered=result.code in _TAKEN, again_at=again_at)

    async def mark(self, session: AsyncSession, ended: Sequence[Ended[Claimed]], *, now: datetime) -> None:  # noqa: ARG002 -- a channel's
        """Write what came of attempts."""
        await outgoing.mark(session, Message, ended)

    async def _send(self, claimed: Claimed) -> Result:
        try:
            if not await self._may_go(claimed):
                return Result(MailCode.REFUSED, answer="No recipient of the account any more.")
            mail = await self._letter(claimed)
            if self.server is None:
                return await self._keep(claimed, mail)
            return await self.server.send(mail, ascii_address(claimed.address))
        except Exception:  # a failed attempt like any other: it is tried again, and seen
            log.exception("mail_failed", message=claimed.id)
            return Result(MailCode.INTERNAL)

    async def _may_go(self, claimed: Claimed) -> bool:
        """Whether the account may still write to them: it held them for a recipient when the message was made (D39)."""
        async with self.sessions() as session:
            if claimed.type == NoticeType.RECIPIENT_INVITED:
                return await recipients.find(session, claimed.account_id, claimed.address) is not None
            account = await accounts.get(session, claimed.account_id)
            return await recipients.may_be_written_to(session, account, claimed.address)

    async def _letter(self, claimed: Claimed) -> EmailMessage:
        if claimed.type == NoticeType.RECIPIENT_INVITED and claimed.subject_id is not None:
            keys = self.keys(claimed.account_id, claimed.sealed_keys)
            code = confirmation_code(keys.mac("recipients", claimed.subject_id.bytes))
            return letter(self.house, claimed, code=code)
        if claimed.type == NoticeType.RUN_FAILED and claimed.subject_id is not None:
            async with self.sessions() as session:
                return letter(self.house, claimed, owner=await runs.owner_name(session, claimed.subject_id) or "")
        attachment, personal = await self._attachment(claimed)
        return letter(self.house, claimed, attachment=attachment, personal=personal)

    async def _attachment(self, claimed: Claimed) -> tuple[Attachment | None, bool]:
        """The error file, or what is wrong with a manifest (S122, S132); and whether a column of it is personal.

        None where there is none, where it is personal or too large: then the letter has a link only (D30, D39).
        """
        if claimed.type not in _WITH_FILES or claimed.subject_id is None:
            return None, False
        async with self.sessions() as session:
            row = await ingestions.get(session, claimed.account_id, claimed.subject_id)
            personal = await attributes.personal_names(session, claimed.account_id)
            is_personal = await ingestions.has_any_of(session, row.id, personal)
        if row.error and row.error["problems"]:
            return problems_file(manifest_name(claimed.data) or "manifest", row.error["problems"]), is_personal
        if row.error_blob is None or (row.error_size_bytes or 0) > self.attachment_bytes or is_personal:
            return None, is_personal
        keys, blob = self.keys(claimed.account_id, claimed.sealed_keys), row.error_blob

        def read() -> bytes:
            with closing(self.blobs.open(blob, keys)) as file:
                return b"".join(iter(lambda: file.read(1 << 20), b""))

        stem = claimed.data["file"]["name"].rpartition(".")[0]
        return Attachment(f"{stem}.errors.csv", await asyncio.to_thread(read)), is_personal

    async def _keep(self, claimed: Claimed, mail: EmailMessage) -> Result:
        keys, name = self.keys(claimed.account_id, claimed.sealed_keys), f"{MAILED}/{claimed.id.hex}/{new_id().hex}.eml"

        def write() -> None:
            with closing(self.blobs.create(name, keys)) as blob:
                blob.write(mail.as_bytes())
                blob.commit()

        await asyncio.to_thread(write)
        async with transaction(self.sessions) as session:
            await messages.keep(session, claimed.id, name)
        return Result(MailCode.KEPT)
