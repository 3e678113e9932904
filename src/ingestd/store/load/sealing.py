"""Personal values that stand stored in the clear, or sealed by an older key, are sealed anew (D13, T111).

Nothing else of a person changes: the value is the same, and so are its origin and the row's times.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql

from ingestd.domain.identity import kind_word
from ingestd.domain.personal import MASK, each_value, identifier_place
from ingestd.keyring import AccountKeys
from ingestd.store.load.stage import Cursors, cursor, lock_slices, partition
from ingestd.store.segments import LOCK_MEMBERS

MEMBERS: Final = """
UPDATE segment_members SET value = %(mask)s
WHERE segment = %(number)s AND kind = ANY (%(kinds)s) AND value <> %(mask)s
"""

BATCH: Final = 2000
"""People of one transaction, which holds the slice."""

FIND: Final = """
SELECT profile_id, attributes, identifiers FROM {slice}
WHERE account_id = %(account)s AND profile_id > %(after)s
    AND (attributes::jsonb ?| %(names)s OR identifiers::jsonb ?| %(words)s)
ORDER BY profile_id LIMIT %(batch)s
"""

CHANGE: Final = """
UPDATE {slice} t SET
    attributes = (t.attributes::jsonb || s.attributes::jsonb)::json,
    identifiers = (t.identifiers::jsonb || s.identifiers::jsonb)::json, digest = NULL
FROM (
    SELECT %(account)s::uuid AS account_id, unnest(%(ids)s::uuid[]) AS profile_id,
        unnest(%(attributes)s::text[]) AS attributes, unnest(%(identifiers)s::text[]) AS identifiers
) s
WHERE t.account_id = s.account_id AND t.profile_id = s.profile_id
"""


def seal_slice(
    connection: Connection[Any], account_id: UUID, number: int, personal: Mapping[str, int | None], keys: AccountKeys
) -> int:
    """Seal what one slice of the account's people has of personal attributes, given by name with their kinds.

    Each batch is a transaction of its own, and what is sealed already stays as it is: it can be broken off anywhere and
    begun again. Gives how many people were changed.
    """
    places = {"attributes": {name: name for name in personal}}
    words = [kind_word(kind) for kind in personal.values() if kind is not None]
    places["identifiers"] = {word: identifier_place(word) for word in words}
    parameters = {"account": account_id, "names": list(personal), "words": words, "batch": BATCH}
    changed, after = 0, UUID(int=0)
    while True:
        with connection.transaction(), cursor(connection) as cur:
            lock_slices(cur, account_id, [number])
            find = sql.SQL(FIND).format(slice=partition("profiles", number))
            found = cur.execute(find, parameters | {"after": after}).fetchall()
            changed += _seal(cur, account_id, number, found, places, keys)
        if len(found) < BATCH:
            return changed
        after = found[-1][0]


def mask_members(connection: Connection[Any], account_id: UUID, kinds: Collection[int]) -> None:
    """Take the values of these kinds of identifiers out of all segments, which go on by their hashes."""
    named = {"account": account_id, "kinds": list(kinds), "mask": MASK}
    of_account = "SELECT id, number FROM segments WHERE account_id = %(account)s AND deleted_at IS NULL ORDER BY id"
    for segment, number in connection.execute(of_account, named).fetchall():
        with connection.transaction():
            connection.execute(LOCK_MEMBERS, {"segment": segment})
            connection.execute(MEMBERS, named | {"number": number})


def _seal(
    cur: Cursors,
    account_id: UUID,
    number: int,
    people: list[tuple[UUID, dict[str, Any], dict[str, Any]]],
    places: Mapping[str, Mapping[str, str]],
    keys: AccountKeys,
) -> int:
    """Seal the values of some people; gives of how many any was not sealed yet."""
    rows = []
    for id_, attributes, identifiers in people:
        new = _anew(attributes, places["attributes"], keys), _anew(identifiers, places["identifiers"], keys)
        if any(new):
            rows.append((id_, *map(json.dumps, new)))
    if rows:
        change = sql.SQL(CHANGE).format(slice=partition("profiles", number))
        columns = zip(("ids", "attributes", "identifiers"), map(list, zip(*rows, strict=True)), strict=True)
        cur.execute(change, dict(columns) | {"account": account_id})
    return len(rows)


def _anew(stored: dict[str, Any], places: Mapping[str, str], keys: AccountKeys) -> dict[str, Any]:
    """Those of the stored values that are to be changed, sealed for their places."""
    new = {
        name: each_value(stored[name], partial(keys.seal_anew, place))
        for name, place in places.items()
        if name in stored
    }
    return {name: value for name, value in new.items() if value != stored[name]}
