"""What is stored of personal attributes is sealed, in the account's order: no ingestion of it runs meanwhile (D13).

That is asked for when an attribute is marked as personal, since people may have values of it, and when the account is
to have new data keys (T111). Each step can be repeated, so it can be broken off anywhere and begun again.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain.identity import SLICES
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.pool import Pool
from ingestd.ingest.work import Place
from ingestd.keyring import AccountKeys, Keyring
from ingestd.store import accounts, attributes, filters
from ingestd.store import engine as store
from ingestd.store.accounts import Account, Rotation
from ingestd.store.engine import new_id, utc_now
from ingestd.store.load.sealing import mask_members, seal_slice

log = telemetry.logger(__name__)


async def seal_what_is_marked(session: AsyncSession, jobs: JobEngine, account_id: UUID) -> None:
    """Have the stored values sealed of attributes that were marked in this transaction, if any was."""
    if await attributes.any_unsealed(session, account_id):
        await _ask(session, jobs, account_id)


async def rotate(session: AsyncSession, jobs: JobEngine, account: Account) -> None:
    """Have new data keys made for an account and all its personal values sealed by them; the caller holds its row."""
    if account.rotation in {None, Rotation.FAILED}:
        account.rotation = Rotation.ASKED
        await session.flush()
        await _ask(session, jobs, account.id)


async def _ask(session: AsyncSession, jobs: JobEngine, account_id: UUID) -> None:
    await jobs.enqueue_sealing(session, account_id=account_id, seq=await accounts.take_seq(session, account_id))


def seal_account(sql: Engine, pool: Pool, place: Place, keyring: Keyring, account_id: UUID) -> None:
    """Seal everything that is stored of the account's personal attributes by its newest key, and drop the older ones.

    New keys are made here, not when they are asked for: what an ingestion compares is then sealed by one key.
    """
    with sql.begin() as connection:
        personal = attributes.personal(connection, account_id)
        if attributes.personal(connection, account_id, unsealed=True):
            filters.fall_behind(connection, account_id, new_id())  # less can be asked of what is personal
    with sql.begin() as connection:  # not before: who holds a segment may come to need the account
        sealed = accounts.keys_for_sealing(connection, account_id)
        if sealed is None:
            return  # the account was deleted
        if accounts.move_on(connection, account_id, Rotation.ASKED, Rotation.SEALING):
            sealed = keyring.add_keys(account_id, sealed)
            accounts.keep_keys(connection, account_id, sealed)
    keys = keyring.open(account_id, sealed).to_worker()
    changed = pool.run(_seal_people, place, keys, account_id, personal) if personal else 0
    with sql.begin() as connection:
        sealed = accounts.keys_for_sealing(connection, account_id)
        if sealed is None:
            return
        if accounts.move_on(connection, account_id, Rotation.SEALING, None):
            accounts.keep_keys(connection, account_id, keyring.drop_old_keys(account_id, sealed))
        attributes.set_sealed(connection, account_id, personal, now=utc_now())
    log.info("personal_values_sealed", account=str(account_id), attributes=len(personal), people=changed)


def give_up(sql: Engine, account_id: UUID) -> None:
    """Say that sealing has failed, a mark's too: what is sealed already opens, and a rotation does the rest (P6)."""
    with sql.begin() as connection:
        accounts.fail_rotation(connection, account_id)


def _seal_people(place: Place, keys: bytes, account_id: UUID, personal: Mapping[str, int | None]) -> int:
    """Seal what all people of an account have, in a data-plane process."""
    opened = AccountKeys.from_worker(keys)
    kinds = {kind for kind in personal.values() if kind is not None}
    with store.autocommitting(place.database_url) as connection:
        if kinds:
            mask_members(connection, account_id, kinds)
        return sum(seal_slice(connection, account_id, number, personal, opened) for number in range(SLICES))
