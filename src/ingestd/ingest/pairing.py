"""A manifest meets its data file: what is taken, refused or repeated (S107 to S111, D17, D18, D39)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.blobs.store import BlobInfo
from ingestd.domain.errors import Conflict, FileRefused, Invalid, Problem
from ingestd.domain.file_name import refuse_unfit, safe_name
from ingestd.domain.ingestion import Channel, ErrorView, Stage, Status
from ingestd.domain.manifest import Manifest as Parsed
from ingestd.domain.manifest import named_address, parse
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Limits, Plan
from ingestd.domain.recipient import normal_address
from ingestd.domain.submission import Actor, Submission
from ingestd.ingest.intake import Intake, new_ingestion, submit
from ingestd.ingest.refusal import error_of
from ingestd.ingest.tell import tell
from ingestd.store import accounts, files, import_keys, ingestions, manifests, recipients
from ingestd.store.accounts import Account
from ingestd.store.engine import new_id
from ingestd.store.files import File
from ingestd.store.ingestions import Ingestion
from ingestd.store.manifests import Manifest, ManifestState

NOT_THERE_YET: Final = "no_data_file"
"""The code of a refusal that is none as long as the manifest may wait for its data file (D17)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A manifest as it came through a door: its name, its bytes, where they are kept, and who brought it."""

    channel: Channel
    account_id: UUID
    name: str
    text: bytes
    blob: BlobInfo
    actor: Actor


async def submit_manifest(session: AsyncSession, intake: Intake, arrival: Arrival, *, now: datetime) -> UUID | None:
    """Pair a manifest with its data file and submit it, in the caller's transaction; gives the ingestion's id.

    None where the manifest may wait for a data file that comes later, and does (D17).

    A manifest that is refused is an ingestion that has failed, told like any other: nothing is ever dropped silently.
    """
    account = await accounts.lock(session, arrival.account_id)
    earlier = await manifests.find(session, account.id, arrival.name)
    if earlier is not None:
        return await _again(session, account, arrival, earlier, now=now)
    manifest = await _add(session, arrival, ManifestState.ACCEPTED, now=now)
    return await _meet(session, intake, account, manifest, arrival, now=now)


async def settle(session: AsyncSession, intake: Intake, waiting: Manifest, text: bytes, *, now: datetime) -> bool:
    """Pair a manifest that waited with the data file that has come, or refuse it when its time is over (D17)."""
    account = await accounts.lock(session, waiting.account_id)
    manifest = await manifests.get(session, account.id, waiting.id, lock=True)
    if manifest.state != ManifestState.WAITING or manifest.brought_by is None:
        return False  # another clock was faster
    assert manifest.blob is not None  # the texts of those that wait do not expire
    blob = BlobInfo(manifest.blob, manifest.size_bytes, manifest.sha256)
    arrival = Arrival(Channel.SFTP, account.id, manifest.name, text, blob, Actor.read(manifest.brought_by))
    return await _meet(session, intake, account, manifest, arrival, now=now) is not None


async def add_draft(session: AsyncSession, arrival: Arrival, *, now: datetime) -> Manifest:
    """Keep a manifest as a draft, which reserves its name, or raise Conflict where that is used (D18)."""
    await _refuse_used(session, arrival)
    return await _add(session, arrival, ManifestState.DRAFT, now=now)


async def rewrite_draft(session: AsyncSession, manifest: Manifest, arrival: Arrival) -> None:
    """Give a draft another content and, if it is free, another name."""
    if arrival.name != manifest.name:
        await _refuse_used(session, arrival)
    manifest.name = arrival.name
    manifest.size_bytes = arrival.blob.size
    manifest.sha256 = arrival.blob.sha256
    manifest.blob = arrival.blob.name


async def _refuse_used(session: AsyncSession, arrival: Arrival) -> None:
    await accounts.lock(session, arrival.account_id)
    if await manifests.find(session, arrival.account_id, arrival.name):
        raise Conflict("A manifest of this name has been used before, or is a draft.", code="name_used")


async def submit_draft(
    session: AsyncSession, intake: Intake, manifest: Manifest, arrival: Arrival, *, now: datetime
) -> Ingestion:
    """Pair a draft with its data file and submit it; where it is refused (Invalid, FileRefused) it stays a draft."""
    account = await accounts.lock(session, arrival.account_id)
    ingestion = await _pair(session, intake, account, manifest, arrival, now=now)
    manifest.state = ManifestState.ACCEPTED
    return ingestion


async def submit_file(  # noqa: PLR0913 -- a manifest without a name, and the file it is for
    session: AsyncSession,
    intake: Intake,
    account_id: UUID,
    file_id: UUID,
    text: bytes,
    *,
    actor: Actor,
    now: datetime,
) -> Ingestion:
    """Submit a file that waits with a manifest given beside it; raise Conflict where another has taken the file."""
    account = await accounts.lock(session, account_id)
    file = await files.get_available(session, account_id, file_id)
    parsed = await read_manifest(session, account, text)
    if parsed.file_name != file.name:
        problem = Problem("/fileName", "other_file", "'fileName' must be the name of the file.")
        raise Invalid("Incorrect details in manifest file", code="manifest_incorrect", problems=(problem,))
    refuse_unfit(file.name, file.size_bytes, intake.limits)
    submission = await _claim(session, parsed, _plan(intake, account, parsed), file, Channel.UPLOAD, actor)
    return await submit(session, intake, submission, now=now)


async def read_manifest(session: AsyncSession, account: Account, text: bytes) -> Parsed:
    """What a manifest says, or Invalid with every problem; its recipient is one of the account's."""
    try:
        parsed = parse(text)
    except Invalid as refusal:
        address = named_address(text)
        if address and all(problem.pointer != "/clientEmail" for problem in refusal.problems):
            await _check_recipient(session, account, address, beside=refusal.problems)
        raise
    await _check_recipient(session, account, parsed.client_email)
    return parsed


async def _add(session: AsyncSession, arrival: Arrival, state: ManifestState, *, now: datetime) -> Manifest:
    manifest = Manifest(
        id=new_id(),
        account_id=arrival.account_id,
        name=arrival.name,
        size_bytes=arrival.blob.size,
        sha256=arrival.blob.sha256,
        blob=arrival.blob.name,
        state=state,
        problems=[],
        created_at=now,
    )
    session.add(manifest)
    await session.flush()
    return manifest


async def _meet(
    session: AsyncSession, intake: Intake, account: Account, manifest: Manifest, arrival: Arrival, *, now: datetime
) -> UUID | None:
    """Submit a manifest with its data file, refuse it, or let it wait where no such file has come yet."""
    try:
        ingestion = await _pair(session, intake, account, manifest, arrival, now=now)
    except (Invalid, FileRefused) as refusal:
        if refusal.code == NOT_THERE_YET and now < manifest.created_at + intake.manifest_grace:
            manifest.state = ManifestState.WAITING
            manifest.waits_for = safe_name(parse(arrival.text).file_name)
            manifest.brought_by = arrival.actor.shown()
            return None
        error = error_of(refusal)
        manifest.state = ManifestState.REFUSED
        manifest.problems = [problem.model_dump() for problem in error.problems]
        return await _refuse(session, account, arrival, manifest.id, error, now=now)
    manifest.state = ManifestState.ACCEPTED
    return ingestion.id


async def _pair(
    session: AsyncSession, intake: Intake, account: Account, manifest: Manifest, arrival: Arrival, *, now: datetime
) -> Ingestion:
    parsed = await read_manifest(session, account, arrival.text)
    file = await _data_file(session, account.id, parsed, intake.limits)
    submission = await _claim(session, parsed, _plan(intake, account, parsed), file, arrival.channel, arrival.actor)
    manifest.file_id = file.id
    return await submit(session, intake, replace(submission, manifest_id=manifest.id), now=now)


def _plan(intake: Intake, account: Account, parsed: Parsed) -> Plan:
    """The Plan of the data file; restricted events are those of the service and of the account (D36)."""
    return parsed.plan(intake.limits, (*intake.restricted_events, *account.restricted_events))


async def _claim(
    session: AsyncSession, parsed: Parsed, plan: Plan, file: File, channel: Channel, actor: Actor
) -> Submission:
    """Take the file, and say what is to be done with it and who is told; the webhooks are those of its import key."""
    await files.take(session, file)
    return Submission(
        channel=channel,
        account_id=file.account_id,
        plan=plan,
        file_id=file.id,
        uploaded_by=actor,
        recipients=(parsed.client_email,),
        webhook_ids=await _webhooks(session, actor),
        warnings=parsed.warnings,
    )


async def _again(
    session: AsyncSession, account: Account, arrival: Arrival, earlier: Manifest, *, now: datetime
) -> UUID | None:
    """A manifest's name came a second time: a repeat of the same ingestion, or a reuse that is refused (D18)."""
    if earlier.state == ManifestState.WAITING and earlier.sha256 == arrival.blob.sha256:
        return None
    if earlier.sha256 == arrival.blob.sha256 and not await _newer_upload_waits(session, arrival, earlier):
        found = await ingestions.find_of_manifest(session, earlier.id)
        if found is not None:
            return found
    detail = f"A manifest named '{arrival.name}' has been used before. Give every manifest a new name."
    problem = Problem("", "name_used", detail)
    error = error_of(Invalid(code="manifest_incorrect", problems=(problem,)))
    return await _refuse(session, account, arrival, None, error, now=now)


async def _newer_upload_waits(session: AsyncSession, arrival: Arrival, earlier: Manifest) -> bool:
    """Whether its data file came anew; one that waited already when the earlier manifest was refused did not."""
    try:
        name = parse(arrival.text).file_name
    except Invalid:
        return False
    file = await files.find_available(session, arrival.account_id, name)
    return file is not None and file.received_at > earlier.created_at


async def _refuse(
    session: AsyncSession,
    account: Account,
    arrival: Arrival,
    manifest_id: UUID | None,
    error: ErrorView,
    *,
    now: datetime,
) -> UUID:
    submission = Submission(
        channel=arrival.channel,
        account_id=arrival.account_id,
        plan=None,
        file_id=None,
        uploaded_by=arrival.actor,
        manifest_id=manifest_id,
        manifest_name=arrival.name,
        recipients=await _told(session, account, arrival.text),
        webhook_ids=await _webhooks(session, arrival.actor),
    )
    ingestion: Ingestion = new_ingestion(submission, now=now)
    ingestion.status = Status.FAILED
    ingestion.stage = Stage.DONE
    ingestion.error = error.model_dump()
    ingestion.finished_at = now
    session.add(ingestion)
    await session.flush()
    await tell(session, NoticeType.INGESTION_FAILED, ingestion.id, now=now)
    return ingestion.id


async def _check_recipient(
    session: AsyncSession, account: Account, text: str, *, beside: tuple[Problem, ...] = ()
) -> None:
    """Raise Invalid unless the account may send its error files, which hold personal data, to this address (D39).

    `beside` is what else is wrong with the manifest.
    """
    address = normal_address(text)
    if address is None:
        problem = Problem("/clientEmail", "address", "'clientEmail' must be one e-mail address.")
    elif await recipients.may_be_written_to(session, account, address):
        return
    else:
        problem = Problem(
            "/clientEmail",
            "recipient_unknown",
            "'clientEmail' is not among the account's recipients or allowed e-mail domains, or waits for confirmation. "
            "Register it first.",
        )
    raise Invalid("Incorrect details in manifest file", code="manifest_incorrect", problems=(*beside, problem))


async def _webhooks(session: AsyncSession, actor: Actor) -> tuple[UUID, ...]:
    """The webhooks that were chosen for the import key with which a file came (S136)."""
    return await import_keys.webhooks_of(session, actor.id) if actor.type == "import_key" and actor.id else ()


async def _told(session: AsyncSession, account: Account, text: bytes) -> tuple[str, ...]:
    """Whom a manifest that is refused names: told all the same, if the account may write to them (S122, T94)."""
    address = normal_address(named_address(text))
    return (address,) if address and await recipients.may_be_written_to(session, account, address) else ()


async def _data_file(session: AsyncSession, account_id: UUID, parsed: Parsed, limits: Limits) -> File:
    """The newest upload that the manifest can take, or raise FileRefused."""
    name = safe_name(parsed.file_name)
    file = await files.find_available(session, account_id, name) if name else None
    if file is None:
        of_name = f"named '{name}'" if name else "of the name in 'fileName'"
        raise FileRefused(f"No file {of_name} waits for a manifest.", code=NOT_THERE_YET)
    refuse_unfit(file.name, file.size_bytes, limits)
    return file
