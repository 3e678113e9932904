"""How soon the lists answer when an account has a million ingestions: every list, order and filter, and deep pages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import numpy as np

from benchmarks.fill import Known, fill, sequential_reads
from benchmarks.machine import Measured, circumstances
from benchmarks.service import serving, workshop
from ingestd.domain import ids
from ingestd.domain.ids import Prefix

FLUSH_SECONDS: Final = 2.0
"""PostgreSQL's connections report what they read some time after they did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists(Measured):
    """Milliseconds to the pages of the lists: of all, and `questions`, the p50 and p99 of each, the slowest first.

    `rows_read_without_index` are those of the filled tables, while all was asked.
    """

    ingestions: int
    profiles: int
    fill_seconds: float
    seconds: float
    requests: int
    p50_ms: float
    p99_ms: float
    slowest: str
    slowest_p99_ms: float
    rows_read_without_index: int
    questions: dict[str, tuple[float, float]]


def measure(*, ingestions: int, profiles: int, times: int, deep: int, parent: Path | None) -> Iterator[Lists]:
    """Fill a new service, ask each question `times` times, and turn up to `deep` pages of each list in each order."""
    with workshop(parent) as folder, serving(folder) as service:
        began = time.perf_counter()
        known = fill(service.url, ids.read(Prefix.ACCOUNT, service.account), ingestions=ingestions, profiles=profiles)
        filled, on_what, before = time.perf_counter() - began, circumstances(service.url), sequential_reads(service.url)
        began = time.perf_counter()
        with httpx.Client(
            base_url=service.http, headers={"Authorization": f"Bearer {service.key}"}, trust_env=False, timeout=60
        ) as http:
            taken = {name: list(seconds) for name, seconds in _ask(http, known, times=times, deep=deep)}
        seconds = time.perf_counter() - began
        time.sleep(FLUSH_SECONDS)
        after = sequential_reads(service.url)
    every = [second for each in taken.values() for second in each]
    questions = {name: (_ms(each, 50), _ms(each, 99)) for name, each in taken.items()}
    slowest_first = dict(sorted(questions.items(), key=lambda question: question[1][1], reverse=True))
    slowest, (_, slowest_p99) = next(iter(slowest_first.items()))
    yield Lists(
        work="lists",
        variant="filled",
        mb=0,
        run=1,
        ingestions=ingestions,
        profiles=profiles,
        fill_seconds=round(filled, 1),
        seconds=round(seconds, 1),
        requests=len(every),
        p50_ms=_ms(every, 50),
        p99_ms=_ms(every, 99),
        slowest=slowest,
        slowest_p99_ms=slowest_p99,
        rows_read_without_index=sum(after[table] - before[table] for table in after),
        questions=slowest_first,
        **on_what,
    )


def _ask(http: httpx.Client, known: Known, *, times: int, deep: int) -> Iterator[tuple[str, Iterator[float]]]:
    """Every question about every list that the document of the service names, with the seconds to its answers."""
    document = _answer(http, "/openapi.json", {})
    newest = _answer(http, "/v1/ingestions", {"limit": 1})["data"][0]
    places = {
        "webhook_id": ids.show(Prefix.WEBHOOK, known.webhook),
        "profile_id": ids.show(Prefix.PROFILE, known.person),
        "ingestion_id": newest["id"],
    }
    for path, filters in _lists(document):
        url = path.format_map(_Places(places))
        for order in filters.pop("sort")["enum"]:
            asked = {"sort": order}
            yield f"{path}?sort={order}, page by page", islice(_pages(http, url, asked), deep)
            for name, schema in filters.items():
                for value in _values(document, schema) or _known_values(name, newest):
                    which = asked | {name: value}
                    yield f"{path}?{urlencode(which)}", (_seconds(http, url, which)[0] for _ in range(times))


class _Places(dict[str, str]):
    """Ids for the places in a path; where nothing is known, one of nothing."""

    def __missing__(self, name: str) -> str:
        return f"unknown-{name}"


def _lists(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lists of the API, which are what takes a cursor, with the schemas of their filters and of `sort`."""
    for path, operations in document["paths"].items():
        parameters = operations.get("get", {}).get("parameters", [])
        queries = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
        if queries.pop("cursor", None):
            del queries["limit"]
            yield path, queries


def _values(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """All values of a filter that has few."""
    kind = schema.get("items", schema)
    if "$ref" in kind:
        kind = document["components"]["schemas"][kind["$ref"].rsplit("/", 1)[1]]
    found: list[str] = kind.get("enum", [])
    return found


def _known_values(name: str, newest: Mapping[str, Any]) -> list[str]:
    """Values, frequent and rare, of a filter that may have any: see `fill`."""
    keys = [newest["uploaded_by"]["id"], f"ikey_{'rare':0>26}"]
    return {
        "name": ["profiles.csv", "events_5.csv", newest["file"]["name"], "day_1.manifest"],
        "file_name": ["profiles.csv", "events_5.csv", newest["file"]["name"], "none.csv"],
        "uploader": keys,
        "actor": keys,
        "action": ["ingestion.created", "webhook.changed", "none"],
        "target": ["ing_1"],
        "ingestion": [newest["id"]],
    }.get(name, [newest["created_at"]] if name.endswith(("_from", "_to")) else [])


def _pages(http: httpx.Client, url: str, asked: dict[str, Any]) -> Iterator[float]:
    """The seconds to each page of a list, one after the other."""
    cursor: dict[str, str] = {}
    while True:
        seconds, page = _seconds(http, url, asked | cursor | {"limit": 200})
        yield seconds
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def _seconds(http: httpx.Client, url: str, asked: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    answer = http.get(url, params=asked)
    seconds = time.perf_counter() - began
    page: dict[str, Any] = answer.json() if answer.status_code == 404 else answer.raise_for_status().json()
    return seconds, {"next_cursor": None, **page}


def _answer(http: httpx.Client, url: str, asked: Mapping[str, Any]) -> Any:
    return http.get(url, params=asked).raise_for_status().json()


def _ms(seconds: list[float], share: float) -> float:
    return round(1000 * float(np.percentile(seconds, share)), 1)
