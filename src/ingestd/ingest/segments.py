"""Segments are made here, and files handed in for them, whatever door brought them (S2, S7)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import Conflict
from ingestd.domain.file_name import refuse_unfit
from ingestd.domain.ingestion import Channel
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Mode
from ingestd.domain.segment import Method, SegmentStatus, segment_plan
from ingestd.domain.submission import Actor, Submission
from ingestd.ingest.intake import Intake, submit
from ingestd.ingest.tell import tell, tell_of_segment
from ingestd.store import accounts, files, ingestions, schedules, segments
from ingestd.store.ingestions import Ingestion
from ingestd.store.segments import Segment


async def make(session: AsyncSession, segment: Segment) -> Segment:
    """Keep a new segment and tell of it, or raise Conflict where the account has one of its name."""
    await session.run_sync(segments.add, segment)
    await tell_of_segment(session, NoticeType.SEGMENT_CREATED, segment.id, now=segment.created_at)
    return segment


async def in_use(session: AsyncSession, account_id: UUID, segment_id: UUID, *, lock: bool = False) -> Segment:
    """A segment that files may fill; NotFound where it is gone, Conflict where a condition does or it is not in use."""
    segment = await segments.get(session, account_id, segment_id, lock=lock)
    refuse_filtered(segment)
    status = SegmentStatus(segment.status)
    if not status.takes_files:
        raise Conflict(f"The segment is {status}: activate it first.", code="segment_inactive")
    return segment


def refuse_filtered(segment: Segment) -> None:
    """Raise Conflict where files are no matter to a segment."""
    if segment.method == Method.FILTER:
        raise Conflict("A condition says who is in the segment; no file can.", code="segment_filtered")


async def remove(session: AsyncSession, segment: Segment, *, now: datetime) -> None:
    """Delete a segment and its schedule, and cancel what is on its way to it; the caller holds its members."""
    await segments.remove(session, segment, now=now)
    await schedules.remove(session, segment.id)
    for ingestion_id in await ingestions.open_of_segment(session, segment.id):
        if await ingestions.cancel(session, ingestion_id, now=now):
            await tell(session, NoticeType.INGESTION_CANCELLED, ingestion_id, now=now)


async def submit_segment(  # noqa: PLR0913 -- a file, a segment, and how it came
    session: AsyncSession,
    intake: Intake,
    account_id: UUID,
    segment_id: UUID,
    file_id: UUID,
    *,
    channel: Channel = Channel.UPLOAD,
    mode: Mode = Mode.REPLACE,
    recipients: tuple[str, ...] = (),
    actor: Actor,
    now: datetime,
) -> Ingestion:
    """Submit a file that waits as the members of a segment, in the caller's transaction.

    Conflict where the segment is not in use, or another has taken the file. With the mode `append` nobody leaves.
    """
    await accounts.lock(session, account_id)
    segment = await in_use(session, account_id, segment_id)
    file = await files.get_available(session, account_id, file_id)
    refuse_unfit(file.name, file.size_bytes, intake.limits)
    await files.take(session, file)
    plan = segment_plan(intake.limits, hold_above=intake.hold_above)
    submission = Submission(
        channel=channel,
        account_id=account_id,
        plan=plan.model_copy(update={"mode": mode}),
        file_id=file.id,
        segment_id=segment.id,
        uploaded_by=actor,
        recipients=recipients,
        webhook_ids=tuple(segment.webhook_ids),
    )
    return await submit(session, intake, submission, now=now)
