"""The generated file of the demo: 100,000 profile rows, one in a hundred wrong in one of many ways."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROWS: Final = 100_000
_BAD_EVERY: Final = 100

_HEADER: Final = (
    "time_stamp,identity,cookie_id,id_name,id_email,id_phone,id_phone.operation,"
    "is_married,age,Playlist,Playlist.operation,MSG-SMS,MSG-DNDSMS"
)

_COLUMNS: Final = {
    "time_stamp": ("ts", "INTEGER"),
    "identity": ("identity", "STRING"),
    "cookie_id": ("objectId", "STRING"),
    "id_name": ("Name", "STRING"),
    "id_email": ("Email", "STRING"),
    "id_phone": ("Phone", "STRING"),
    "is_married": ("Married", "BOOLEAN"),
    "age": ("Age", "INTEGER"),
    "MSG-SMS": ("MSG-sms", "BOOLEAN"),
    "MSG-DNDSMS": ("MSG-dndSMS", "BOOLEAN"),
}

_SPOILED: Final = (
    ('"Doe, {n}"', '"Doe, {n}'),  # the quote is never closed
    (",{age},", ",{age} years,"),  # no INTEGER
    (",true,{age}", ",perhaps,{age}"),  # no BOOLEAN
    ("+91887", "+911"),  # no phone number
    ("@example.org,+", "@,+"),  # no e-mail address
    ("157", "2026-11-22,"),  # no epoch, and a field too many
    ("$add", "$increase"),  # no operation
    ("user-{n},cookie-{n},", ",,"),  # nobody
    ("user-{n},", "user\u200b-{n},"),  # an invisible character in an identifier
    (",false\n", "\n"),  # a field too few
)


def write(folder: Path, stem: str) -> None:
    """Write `<stem>.csv` and `<stem>.manifest` into a folder; the same bytes every time."""
    with (folder / f"{stem}.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(_HEADER + "\n")
        file.writelines(_rows())
    manifest = {
        "fileName": f"{stem}.csv",
        "type": "profile",
        "columns": {header: {"ctName": name, "dataType": kind} for header, (name, kind) in _COLUMNS.items()},
        "clientEmail": "data-team@example.org",
    }
    (folder / f"{stem}.manifest").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _rows() -> Iterator[str]:
    chance = random.Random(1)  # noqa: S311 -- no secret
    for n in range(ROWS):
        age = chance.randrange(18, 80)
        phone = f"+918876{chance.randrange(10**6):06}"
        row = (
            f'{1574668407 + n},user-{n},cookie-{n},"Doe, {n}",user-{n}@example.org,{phone},,'
            f"true,{age},Rock,$add,true,false\n"
        )
        if n % _BAD_EVERY == _BAD_EVERY - 1:
            good, bad = _SPOILED[n // _BAD_EVERY % len(_SPOILED)]
            row = row.replace(good.format(n=n, age=age), bad.format(n=n, age=age), 1)
        yield row
