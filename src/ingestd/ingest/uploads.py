"""A file is handed in for a data source, whatever door brought it (S51 to S70, D16, D50, D51)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.data_source import SUFFIX, plan
from ingestd.domain.errors import FileRefused, Invalid, Problem
from ingestd.domain.ingestion import Channel
from ingestd.domain.layout import bind
from ingestd.domain.plan import Format, Mode, Plan
from ingestd.domain.recipient import normal_address
from ingestd.domain.segment import Method, SegmentStatus, SegmentType, UploadType
from ingestd.domain.submission import Actor, Submission
from ingestd.ingest.attributes import goals
from ingestd.ingest.intake import Intake, submit
from ingestd.ingest.segments import in_use, make
from ingestd.pipeline.scan import open_scan
from ingestd.store import accounts, data_sources, files, recipients
from ingestd.store.accounts import Account
from ingestd.store.data_sources import DataSource
from ingestd.store.engine import new_id
from ingestd.store.ingestions import Ingestion
from ingestd.store.segments import Segment


@dataclass(frozen=True, slots=True)
class NewSegment:
    """A segment that is made of the people of a file."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that waits and the data source it is for, as it was asked for.

    `notify` are told, the recipients of a schedule unasked. `segment` is one to be made of the file's people, or one
    that they are put into (S65, D15).
    """

    file_id: UUID
    data_source_id: UUID
    mode: Mode = Mode.APPEND
    dry_run: bool = False
    notify: Sequence[str] = ()
    segment: NewSegment | UUID | None = None
    channel: Channel = Channel.UPLOAD


async def header_of(intake: Intake, account_id: UUID, file_id: UUID) -> tuple[str, ...]:
    """The header of a file of the account, read as a data source's, or NotFound or FileRefused.

    It is read before the transaction in which the file is submitted: none stays open while bytes are fetched.
    """
    async with intake.sessions() as session:
        file = await files.get_kept(session, account_id, file_id)
    return await header_in(intake, account_id, file.blob, name=file.name, size=file.size_bytes)


async def header_in(intake: Intake, account_id: UUID, blob: str, *, name: str, size: int) -> tuple[str, ...]:
    """The same of bytes that are no file yet."""
    _refuse_unfit(name, size, intake)
    keys = await intake.keys(account_id)

    def read() -> tuple[str, ...]:
        with closing(intake.blobs.open(blob, keys)) as stream:
            return open_scan(stream, delimiter=Format.TSV.delimiter, limits=intake.source_limits).header

    return await asyncio.to_thread(read)


async def submit_upload(  # noqa: PLR0913 -- an upload, its header, by whom and when
    session: AsyncSession,
    intake: Intake,
    account_id: UUID,
    upload: Upload,
    header: tuple[str, ...],
    *,
    actor: Actor,
    now: datetime,
) -> Ingestion:
    """Submit a file that waits for a data source, in the caller's transaction; its id is the Request ID (S70).

    Invalid, FileRefused or Conflict where it does not fit: nothing stays of it then. A dry run leaves the file waiting.
    """
    account = await accounts.lock(session, account_id)
    file = await files.get_available(session, account_id, upload.file_id)
    source = await data_sources.get(session, account_id, upload.data_source_id, lock=True)
    its_plan = await plan_for(session, intake, source, mode=upload.mode)
    bind(its_plan, header)
    told = await _told(session, account, upload.notify) if upload.channel is Channel.UPLOAD else tuple(upload.notify)
    segment_id = None
    if not upload.dry_run:
        segment_id = await _segment(session, source, upload.segment, now=now)
        await files.take(session, file)
    submission = Submission(
        channel=upload.channel,
        account_id=account_id,
        plan=its_plan,
        file_id=file.id,
        data_source_id=source.id,
        segment_id=segment_id,
        dry_run=upload.dry_run,
        uploaded_by=actor,
        recipients=told,
        webhook_ids=tuple(source.webhook_ids),
    )
    return await submit(session, intake, submission, now=now)


async def plan_for(session: AsyncSession, intake: Intake, source: DataSource, *, mode: Mode) -> Plan:
    """The Plan of a data source's next file, or Invalid before it has a mapping (S58)."""
    mapping = await data_sources.mapping(session, source)
    if mapping is None:
        raise Invalid("The data source has no mapping yet: what do the columns mean?", code="mapping_missing")
    known = await goals(session, source.account_id)
    made = plan(mapping.pairs, known, intake.source_limits, mode=mode)
    return made.model_copy(update={"hold_above": intake.hold_above}) if mode is Mode.REPLACE else made


async def _segment(
    session: AsyncSession, source: DataSource, wanted: NewSegment | UUID | None, *, now: datetime
) -> UUID | None:
    """The segment that the file's people are put into, made if it is to be; in progress until they are in it.

    One that is made has the moment of its ingestion: it goes with it where that ends without having filled it.
    """
    if isinstance(wanted, UUID):
        return (await in_use(session, source.account_id, wanted, lock=True)).id
    if wanted is None:
        return None
    made = Segment(
        id=new_id(),
        account_id=source.account_id,
        name=wanted.name,
        description=f"Made of a file of the data source {source.name}",
        type=SegmentType.NON_SCD,
        method=Method.UPLOAD,
        upload_type=UploadType.MANUAL,
        status=SegmentStatus.IN_PROGRESS,
        members=0,
        webhook_ids=[],
        created_at=now,
    )
    return (await make(session, made)).id


def _refuse_unfit(name: str, size: int, intake: Intake) -> None:
    """Raise for what is no data source's file by its name or size (S51, S52, D10, D50)."""
    if not name.lower().endswith(SUFFIX):
        raise FileRefused(f"A data source takes TSV: the file's name must end in {SUFFIX}.")
    limit = intake.source_limits.file_bytes
    if size > limit:
        raise Invalid(f"The file has {size} bytes; a data source takes {limit}.", code="too_large")


async def _told(session: AsyncSession, account: Account, notify: Sequence[str]) -> tuple[str, ...]:
    """The addresses to tell, in their normal form, or Invalid where the account may not write to one (S68, D39)."""
    problems, told = [], []
    for place, text in enumerate(notify):
        address = normal_address(text)
        if address is None:
            problems.append(Problem(f"/body/notify/{place}", "address", "Must be one e-mail address."))
        elif not await recipients.may_be_written_to(session, account, address):
            detail = "Not among the account's recipients or allowed e-mail domains, or not confirmed yet."
            problems.append(Problem(f"/body/notify/{place}", "recipient_unknown", detail))
        else:
            told.append(address)
    if problems:
        raise Invalid("Somebody is to be told who may not be written to.", problems=tuple(problems))
    return tuple(dict.fromkeys(told))
