"""What a caller sees of personal values: the values where the key may read them, else a mask (S61, D13).

Whoever reads them is noted in the audit trail: each person by itself, so that it can be asked who read of whom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.context import Parts, Principal, Scope
from ingestd.api.values import value
from ingestd.domain import ids
from ingestd.domain.identity import REACHABLE, kind_of
from ingestd.domain.ids import Prefix
from ingestd.domain.personal import MASK, SEALED, each_value, identifier_place, is_sealed
from ingestd.keyring import AccountKeys, SealBroken
from ingestd.store import attributes
from ingestd.store.attributes import Attribute
from ingestd.store.profiles import Profile

READ = "personal_data.read"
BROKEN = "personal_data.broken"
"""What is noted where a stored token is not one of its place: somebody has tampered with the database (T112)."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one caller sees of the account's people.

    `personal` are the names of the attributes marked as personal, `own` the attributes that identify people, by name.
    Nothing is `noted` where it is compared only, and not shown.
    """

    tx: AsyncSession
    caller: Principal
    keys: AccountKeys
    personal: frozenset[str]
    own: Mapping[str, Attribute]
    noted: bool = True

    def of(self, profile: Profile) -> dict[str, Any]:
        """A person's attributes and identifiers by name; where personal values are among them, that they were read."""
        own = {str(each.kind): name for name, each in self.own.items()}
        may_read = self.caller.may(Scope.PROFILES_READ_PII)
        seen = _Seen(self.keys, open=may_read)
        shown = {
            "attributes": {
                name: seen.value(stored, name, personal=name in self.personal)
                for name, stored in sorted(profile.attributes.items())
            },
            "identifiers": {
                own.get(word, word): (
                    seen.value(stored, identifier_place(word), personal=own.get(word) in self.personal)
                    if may_read or kind_of(word) not in REACHABLE
                    else each_value(stored, lambda _: MASK)
                )
                for word, stored in sorted(profile.identifiers.items())
            },
        }
        for action in seen.noted if self.noted else ():
            audit.note(self.tx, self.caller, action, ids.show(Prefix.PROFILE, profile.profile_id))
        return shown


async def sight(tx: AsyncSession, service: Parts, caller: Principal) -> Sight:
    """What the caller sees."""
    return Sight(
        tx,
        caller,
        await service.intake.keys(caller.account_id, tx),
        frozenset(await attributes.personal_names(tx, caller.account_id)),
        await attributes.identifying(tx, caller.account_id),
    )


class _Seen:
    """What is seen of one person, and what is to be noted of it."""

    def __init__(self, keys: AccountKeys, *, open: bool) -> None:  # noqa: A002 -- whether sealed values are
        self._keys = keys
        self._open = open
        self.noted: dict[str, None] = {}

    def value(self, stored: Any, place: str, *, personal: bool) -> Any:
        """A stored value as it is seen; one that is personal and not sealed yet is treated as if it were."""
        return each_value(stored, lambda each: self._one(each, place, personal=personal))

    def _one(self, stored: Any, place: str, *, personal: bool) -> Any:
        if not personal and not is_sealed(stored):
            return value(stored)
        if not self._open:
            return MASK
        try:
            plain = json.loads(self._keys.open_value(place, stored[SEALED])) if is_sealed(stored) else stored
        except SealBroken:
            self.noted[BROKEN] = None
            return MASK
        self.noted[READ] = None
        return value(plain)
