"""What a caller does to an ingestion that is there: cancel it, or try its rows again."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import Conflict
from ingestd.domain.ingestion import Channel, Status
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Mode, Plan, Target
from ingestd.domain.submission import Actor, Submission
from ingestd.ingest.intake import Intake, submit
from ingestd.ingest.segments import in_use
from ingestd.ingest.tell import tell
from ingestd.ingest.work import error_file_expired
from ingestd.store import accounts, files, ingestion_views, ingestions, segments
from ingestd.store.ingestions import Ingestion


class Rows(StrEnum):
    """Which rows of an ingestion are tried again."""

    ALL = "all"
    REJECTED = "rejected"


async def cancel(session: AsyncSession, account_id: UUID, ingestion_id: UUID, *, now: datetime) -> None:
    """End an ingestion before anything of it is applied, or raise Conflict where it is too late."""
    await ingestion_views.get(session, account_id, ingestion_id)
    if not await ingestions.cancel(session, ingestion_id, now=now):
        raise Conflict("It is too late: rows are being applied, or the ingestion has ended.", code="too_late")
    await tell(session, NoticeType.INGESTION_CANCELLED, ingestion_id, now=now)


async def confirm(
    session: AsyncSession, intake: Intake, account_id: UUID, ingestion_id: UUID, *, now: datetime
) -> None:
    """Let an ingestion that is held go on as the last of the account's order, or raise Conflict where it is not held.

    Its file is checked again, against the members as they are then. It is a Conflict, too, while a newer file is on its
    way, over which it would go.
    """
    seq = await accounts.take_seq(session, account_id)
    ingestion = await ingestions.get(session, account_id, ingestion_id)
    await _check_segment(session, ingestion)
    if not await ingestions.confirm(session, ingestion_id, seq=seq):
        raise Conflict("The ingestion is not held.", code="not_held")
    if await ingestions.newer_open(session, ingestion):
        raise Conflict("A newer file is on its way, which takes the place of this one.", code="newer_file")
    await intake.jobs.enqueue(session, ingestion_id=ingestion_id, account_id=account_id, seq=seq, again=True)
    await tell(session, NoticeType.INGESTION_SCHEDULED, ingestion_id, now=now)


async def retry(  # noqa: PLR0913 -- what is tried again, by whom and when
    session: AsyncSession,
    intake: Intake,
    account_id: UUID,
    ingestion_id: UUID,
    *,
    rows: Rows,
    actor: Actor,
    now: datetime,
) -> Ingestion:
    """Submit the rows of an ingestion that has ended anew, as the last of the account's order.

    The rejected rows are read from its error file; they count as received when the file was, so that nobody who was
    erased since comes back (T114).
    """
    await accounts.lock(session, account_id)
    earlier = await ingestions.get(session, account_id, ingestion_id)
    if not Status(earlier.status).terminal:
        raise Conflict("The ingestion has not ended yet; wait, or cancel it first.", code="not_ended")
    if earlier.file_id is None or earlier.plan is None:
        raise Conflict("There is nothing to try again: the manifest was refused.", code="nothing_to_retry")
    await _check_segment(session, earlier)
    rows_of = earlier.id if rows is Rows.REJECTED else earlier.rows_of
    if rows_of is None:
        await files.get_kept(session, account_id, earlier.file_id, lock=True)  # so that it does not expire meanwhile
    else:
        _refuse_without_errors(await ingestions.get(session, account_id, rows_of, lock=True))
    if earlier.data_source_id is not None and earlier.segment_id is not None:
        await session.run_sync(segments.bring_back, earlier.segment_id, now=now)
    plan = Plan.model_validate(earlier.plan)
    if rows_of is not None and plan.mode is Mode.REPLACE:  # the others of the file are there already
        plan = plan.model_copy(update={"mode": Mode.APPEND})
    submission = Submission(
        channel=Channel(earlier.channel),
        account_id=account_id,
        plan=plan,
        file_id=earlier.file_id,
        uploaded_by=actor,
        manifest_id=earlier.manifest_id,
        data_source_id=earlier.data_source_id,
        dry_run=earlier.dry_run,
        segment_id=earlier.segment_id,
        recipients=tuple(earlier.recipients),
        webhook_ids=tuple(earlier.webhook_ids),
        retry_of=earlier.id,
        rows_of=rows_of,
    )
    return await submit(session, intake, submission, now=now)


async def _check_segment(session: AsyncSession, ingestion: Ingestion) -> None:
    """Raise NotFound or Conflict where the segment that a file refreshes takes none any more."""
    if ingestion.target == Target.SEGMENT and ingestion.segment_id is not None:
        await in_use(session, ingestion.account_id, ingestion.segment_id)


def _refuse_without_errors(earlier: Ingestion) -> None:
    """Raise Conflict where an ingestion has no error file whose rows could be tried again."""
    if earlier.error_blob is not None:
        return
    if error_file_expired(earlier):
        raise Conflict("The error file has expired; upload the file again.", code="error_file_expired")
    raise Conflict("There is no error file: no row was rejected, or none could be kept.", code="nothing_to_retry")
