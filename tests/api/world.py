"""What the tests of resources share: manifests, uploads over HTTP, and a data plane that can be held up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from ingestd.domain import ids
from ingestd.domain.ids import Prefix

SLICES = 16


def manifest(file_name: str, **changes: Any) -> dict[str, Any]:
    """A manifest that holds together."""
    return {"fileName": file_name, "type": "profile", "clientEmail": "data@example.org"} | changes


async def upload(tenant: Any, name: str, data: bytes) -> dict[str, Any]:
    """Put a file over HTTP."""
    return (await tenant.http.put(f"/v1/files/{name}", content=data)).raise_for_status().json()


async def ingest(tenant: Any, name: str, data: bytes, **changes: Any) -> str:
    """Put a file over HTTP and submit it with an inline manifest; gives the ingestion's id."""
    file = await upload(tenant, name, data)
    body = {"file_id": file["id"], "manifest": manifest(name, **changes)}
    return (await tenant.http.post("/v1/ingestions", json=body)).raise_for_status().json()["id"]


@asynccontextmanager
async def nothing_is_applied(ground: Any, tenant: Any) -> AsyncIterator[None]:
    """Hold the account's profiles, as an apply does: whoever wants to apply waits for the end of this."""
    async with await psycopg.AsyncConnection.connect(ground.database_url) as connection:
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s::text, slice)) FROM generate_series(0, %s) AS slice",
            (account_of(tenant), SLICES - 1),
        )
        yield


@asynccontextmanager
async def nothing_is_checked(ground: Any) -> AsyncIterator[None]:
    """Hold the table of profiles: a check, which asks it, waits for the end of this."""
    async with await psycopg.AsyncConnection.connect(ground.database_url) as connection:
        await connection.execute("LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE")
        yield


def account_of(tenant: Any) -> Any:
    """The account's id as the database has it."""
    return ids.read(Prefix.ACCOUNT, tenant.id)


async def until(tenant: Any, ingestion: str, **state: str) -> dict[str, Any]:
    """Wait until an ingestion is in a state; the test's time limit ends a wait in vain."""
    while True:
        shown = (await tenant.http.get(f"/v1/ingestions/{ingestion}")).raise_for_status().json()
        if all(shown[name] == value for name, value in state.items()):
            return shown
