"""What the tests of data sources share: attributes, a source with a mapping, and uploads for it."""

from __future__ import annotations

from typing import Any

from tests.api.world import upload

CRMID = {"name": "crmid", "identifier": True}


class Source:
    """A data source of an account, its mapping written, and what a client does with it."""

    def __init__(self, tenant: Any, id_: str) -> None:
        self.tenant = tenant
        self.id = id_
        self.path = f"/v1/data-sources/{id_}"
        self._files = 0

    async def map(self, **columns: Any) -> dict[str, Any]:
        """Map columns to attributes by name, or to new ones."""
        body = [
            {"column": column, "attribute" if isinstance(goal, str) else "new_attribute": goal}
            for column, goal in columns.items()
        ]
        answer = await self.tenant.http.put(f"{self.path}/mapping", json={"columns": body})
        return answer.raise_for_status().json()

    async def post(self, data: bytes, *, name: str | None = None, **more: Any) -> Any:
        """Put a file and ask for its ingestion; gives the answer."""
        self._files += 1
        file = await upload(self.tenant, name or f"upload-{self.id[-6:]}-{self._files}.tsv", data)
        body = {"file_id": file["id"], "data_source_id": self.id} | more
        return await self.tenant.http.post("/v1/ingestions", json=body)

    async def ingest(self, data: bytes, **more: Any) -> dict[str, Any]:
        """Ingest a file and give the ingestion when it has ended."""
        answer = await self.post(data, **more)
        assert answer.status_code == 202, answer.text
        return await self.tenant.ended(answer.json()["id"])


async def source(tenant: Any, name: str = "CRM", **columns: Any) -> Source:
    """Make a data source with a mapping."""
    made = await tenant.http.post("/v1/data-sources", json={"name": name})
    found = Source(tenant, made.raise_for_status().json()["id"])
    if columns:
        await found.map(**columns)
    return found


async def attribute(tenant: Any, name: str, **more: Any) -> dict[str, Any]:
    """Make an attribute."""
    return (await tenant.http.post("/v1/attributes", json={"name": name} | more)).raise_for_status().json()


def tsv(*rows: str) -> bytes:
    """A TSV file of rows whose cells are separated by spaces."""
    return "".join(row.replace(" ", "\t") + "\n" for row in rows).encode()
