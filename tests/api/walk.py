"""What the walks over all routes need: the operations of the OpenAPI document, and requests made up from it.

A new route is walked by itself. A new kind of id needs a line in `owned`; a body that cannot be made up from the
schema and its examples, one in `BODIES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx
from tests.conftest import Tenant, new_client

from ingestd.api.app import document
from ingestd.domain.ids import Prefix, read
from ingestd.domain.recipient import confirmation_code

UNKNOWN = "0" * 26
OWN = {"instance": "", "request_id": ""}
"""The members of a problem document that are the request's own."""

SERVER = {"kind": "sftp", "host": "127.0.0.1", "port": 2, "username": "ann", "password": "not a real one"}
"""A connection to a server that is not there."""

SCHEDULE = {"path": "loyalty", "frequency": "weekly", "valid_from": "2026-11-01", "valid_to": "2999-12-31"}

GOLD = {"attribute": "TIER", "op": "equals", "value": "gold"}
"""A condition that the attribute of the walk can be asked."""

BODIES: dict[str, Any] = {
    "accounts_create": {"name": "made by the walk"},
    "webhooks_create": {"name": "walk", "url": "https://127.0.0.1:8443/"},
    "webhooks_change": {"name": "walk"},
    "api_keys_create": {"name": "walk", "scopes": ["account:read"]},
    "import_keys_create": {
        "name": "walk",
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    },
    "connections_create": {"name": "made by the walk"} | SERVER,
    "connections_change": {"name": "changed by the walk"},
    "connections_test_new": {"name": "not kept"} | SERVER,
    "connections_pin_host_keys": {"host_keys": []},
    "schedules_preview": {name: SCHEDULE[name] for name in ("frequency", "valid_from", "valid_to")},
    "data_sources_put_schedule": SCHEDULE | {"connection": f"con_{UNKNOWN}"},
    "segments_put_schedule": SCHEDULE | {"connection": f"con_{UNKNOWN}"},
    "profiles_erase_identifiers": {"identifiers": [{"kind": "identity", "value": "nobody"}]},
    "profiles_lookup": {"identifiers": [{"kind": "identity", "value": "ann"}]},
    "segments_create": {
        "name": "made by the walk",
        "description": "Who is how loyal",
        "type": "SCD",
        "method": "upload",
        "upload_type": "manual",
    },
    "filters_preview": {"condition": GOLD},
    "segments_put_condition": {"condition": GOLD},
    "filters_create": {"name": "gold", "description": "Who is golden", "type": "SCD", "condition": GOLD},
    "segments_lookup": {"identifiers": [{"kind": "user_id", "value": "ann"}]},
    "segments_change_partition": {"name": "High loyal"},
    "segments_change": {"description": "Who is how loyal today"},
    "segments_put_draft": {"description": "Who is how loyal now"},
    "manifests_create": {"name": "walk.manifest", "content": {}},
    "attributes_create": {"name": "made by the walk"},
    "data_sources_mapping_suggest": {"columns": ["mail"]},
    "data_sources_create": {"name": "made by the walk"},
    "data_sources_mapping_put": {"columns": [{"column": "id", "attribute": "identity"}]},
    "manifests_change": {"name": "changed.manifest", "content": {}},
}


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    method: str
    path: str
    declared: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def name(self) -> str:
        return self.declared["operationId"]

    @property
    def scope(self) -> str | None:
        """The scope it needs; None where any key will do, or none."""
        return next((scope for each in self.declared["security"] for scopes in each.values() for scope in scopes), None)

    @property
    def is_open(self) -> bool:
        return not self.declared["security"]

    def parameters(self, place: str) -> dict[str, Any]:
        return {each["name"]: each["schema"] for each in self.declared.get("parameters", []) if each["in"] == place}

    def url(self, ids: dict[str, str], **changed: str) -> str:
        """The path with an id of its kind for each parameter; `changed` are other values by the parameter's name."""
        values = {name: ids.get(prefix_of(schema), "x.csv") for name, schema in self.parameters("path").items()}
        return self.path.format(**(values | changed))

    def content(self) -> dict[str, Any]:
        """The arguments of httpx for a body that fits."""
        kinds = self.declared.get("requestBody", {}).get("content", {})
        if not kinds:
            return {}
        if "application/json" in kinds:
            body = BODIES.get(self.name)
            return {"json": example(kinds["application/json"]["schema"]) if body is None else body}
        if "multipart/form-data" in kinds:
            return {"files": {"file": (f"{self.name}.tsv", b"id\nann\n")}}
        kind = next(iter(kinds))
        return {"content": b"", "headers": {"content-type": kind}}


def operations() -> list[Operation]:
    return [
        Operation(method.upper(), path, declared)
        for path, item in DOCUMENT["paths"].items()
        for method, declared in item.items()
    ]


def prefix_of(schema: dict[str, Any]) -> str:
    """The prefix of the ids that a schema describes, or nothing."""
    patterns = [schema.get("pattern", ""), *(each.get("pattern", "") for each in schema.get("anyOf", []))]
    found = [re.match(r"\^([a-z]+)_\[0-7\]", pattern) for pattern in patterns]
    return next((match[1] for match in found if match), "")


def ids_in(operation: Operation) -> dict[str, tuple[str, bool]]:
    """The fields of a JSON body that hold ids: the prefix of each, and whether it holds a list of them."""
    kinds = operation.declared.get("requestBody", {}).get("content", {})
    declared = resolve(kinds.get("application/json", {}).get("schema", {})).get("properties", {})
    lists = {name: prefix_of(resolve(schema.get("items", {}))) for name, schema in declared.items()}
    single = {name: prefix_of(resolve(schema)) for name, schema in declared.items()}
    return {name: (single[name] or lists[name], not single[name]) for name in declared if single[name] or lists[name]}


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    return DOCUMENT["components"]["schemas"][name] if name else schema


def example(schema: dict[str, Any]) -> Any:
    """A value that fits a schema: only what is required, and the first choice of everything."""
    schema = resolve(schema)
    if schema.get("type") == "object":
        return {name: example(schema["properties"][name]) for name in schema.get("required", [])}
    if schema.get("type") == "array":
        return [example(schema["items"])] * schema.get("minItems", 0)
    for name, pick in (("examples", 0), ("enum", 0), ("default", None), ("const", None)):
        if name in schema:
            return schema[name] if pick is None else schema[name][pick]
    if "anyOf" in schema:
        return example(schema["anyOf"][0])
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    return {"integer": schema.get("minimum", 1), "boolean": True, "number": 1.0}.get(schema.get("type", ""), "text")


def unknown(ids: dict[str, str]) -> dict[str, str]:
    """An id of each kind that nobody has."""
    return {prefix: f"{prefix}_{UNKNOWN}" for prefix in ids}


async def owned(tenant: Tenant) -> dict[str, str]:
    """One thing of every kind that the account has, by the prefix of its id."""
    webhook = await tenant.http.post("/v1/webhooks", json=BODIES["webhooks_create"])
    key = await tenant.http.post("/v1/api-keys", json=BODIES["api_keys_create"])
    ended = await tenant.push(b"identity,Age\nann,1\nbob,x\n", columns={"Age": {"dataType": "INTEGER"}})
    profile = await tenant.profile("ann")
    recipient = {"address": "ann@example.org", "name": "Ann"}
    source = (await tenant.http.post("/v1/data-sources", json={"name": "CRM"})).raise_for_status().json()
    await tenant.http.put(f"/v1/data-sources/{source['id']}/mapping", json=BODIES["data_sources_mapping_put"])
    attribute = await tenant.http.post("/v1/attributes", json={"name": "tier", "use_in_segments": True})
    connection = await tenant.http.post("/v1/connections", json=own_door(tenant))
    waiting = await tenant.http.put("/v1/files/walk.tsv", content=b"id\nann\n")
    found = {
        "acc": tenant.id,
        "key": key.raise_for_status().json()["id"],
        "con": connection.raise_for_status().json()["id"],
        "whk": webhook.raise_for_status().json()["id"],
        "ing": ended["id"],
        "fil": waiting.raise_for_status().json()["id"],
        "mft": ended["manifest"]["id"],
        "prf": profile["id"],
        "src": source["id"],
        "atr": attribute.raise_for_status().json()["id"],
        "rcp": (await tenant.http.post("/v1/recipients", json=recipient)).raise_for_status().json()["id"],
    }
    found["seg"], found["prt"] = await filled_segment(tenant)
    found["run"] = await requested_run(tenant, await scheduled_segment(tenant, found["con"], "with a run"))
    for prefix, path in (
        ("ikey", "/v1/import-keys"),
        ("msg", "/v1/messages"),
        ("dlv", f"/v1/webhooks/{found['whk']}/deliveries"),
    ):
        found[prefix] = (await tenant.http.get(path)).raise_for_status().json()["data"][0]["id"]
    return found


def own_door(tenant: Tenant) -> dict[str, Any]:
    """A connection to the service's own SFTP server, which is a real one."""
    server = {"name": "walk", "kind": "sftp", "host": tenant.app.sftp.host, "port": tenant.app.sftp.port}
    login = {"username": tenant.id, "private_key": tenant.import_key.read_text()}
    return server | login | {"host_keys": list(tenant.app.sftp.host_keys)}


async def filled_segment(tenant: Tenant) -> tuple[str, str]:
    """A segment with members and a draft, and one of its partitions."""
    made = await tenant.http.post("/v1/segments", json=BODIES["segments_create"] | {"name": "walk"})
    segment = made.raise_for_status().json()["id"]
    (await tenant.http.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    file = (await tenant.http.put("/v1/files/members.csv", content=b"user_id,level\nann,High\n")).json()
    submitted = await tenant.http.post("/v1/ingestions", json={"file_id": file["id"], "segment_id": segment})
    await tenant.ended(submitted.raise_for_status().json()["id"])
    (await tenant.http.put(f"/v1/segments/{segment}/draft", json=BODIES["segments_put_draft"])).raise_for_status()
    partitions = (await tenant.http.get(f"/v1/segments/{segment}/partitions")).raise_for_status().json()
    return segment, partitions["data"][0]["id"]


async def edited_segment(tenant: Tenant, name: str) -> str:
    """A new segment that has a draft."""
    made = await tenant.http.post("/v1/segments", json=BODIES["segments_create"] | {"name": name})
    segment = made.raise_for_status().json()["id"]
    edits = BODIES["segments_put_draft"]
    (await tenant.http.put(f"/v1/segments/{segment}/draft", json=edits)).raise_for_status()
    return segment


async def filter_segment(tenant: Tenant, name: str) -> str:
    """A new filter segment."""
    made = await tenant.http.post("/v1/filters", json=BODIES["filters_create"] | {"name": name})
    return made.raise_for_status().json()["id"]


async def scheduled_segment(tenant: Tenant, connection: str, name: str) -> str:
    """A new segment in use that has a schedule."""
    body = {"name": name, "upload_type": "scheduled"}
    made = await tenant.http.post("/v1/segments", json=BODIES["segments_create"] | body)
    segment = made.raise_for_status().json()["id"]
    url = f"/v1/segments/{segment}"
    (await tenant.http.put(f"{url}/schedule", json=SCHEDULE | {"connection": connection})).raise_for_status()
    (await tenant.http.post(f"{url}/activate")).raise_for_status()
    return segment


async def scheduled_source(tenant: Tenant, connection: str, name: str) -> str:
    """A new data source that has a schedule."""
    made = (await tenant.http.post("/v1/data-sources", json={"name": name})).raise_for_status().json()
    url = f"/v1/data-sources/{made['id']}/schedule"
    (await tenant.http.put(url, json=SCHEDULE | {"connection": connection})).raise_for_status()
    return made["id"]


async def requested_run(tenant: Tenant, segment: str) -> str:
    """A new run of a segment."""
    return (await tenant.http.post(f"/v1/segments/{segment}/runs")).raise_for_status().json()["id"]


async def fresh(tenant: Tenant, operation: Operation, ids: dict[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The ids and the arguments of httpx for an operation that is done once to a file or so: to a new one."""
    content = operation.content()
    if operation.path.startswith((SEGMENT, SOURCE)) and operation.path.endswith(OF_SCHEDULES):
        return await fresh_schedule(tenant, operation, ids)
    if operation.path.startswith(SEGMENT) and operation.method != "GET" and "/partitions/" not in operation.path:
        make = filter_segment if operation.name == "segments_put_condition" else edited_segment
        return ids | {"seg": await make(tenant, f"for {operation.name}".replace("_", " "))}, content
    if operation.name in UNUSED:
        prefix, path, body = UNUSED[operation.name]
        made = await tenant.http.post(path, json=body)
        return ids | {prefix: made.raise_for_status().json()["id"]}, content
    if operation.name == "connections_pin_host_keys":
        content["json"] = {"host_keys": list(tenant.app.sftp.host_keys)}
    if operation.name == "recipients_confirm":
        content["json"] = {"code": await code_of(tenant, ids["rcp"])}
    if operation.name not in {"files_delete", "ingestions_create"} and not operation.path.startswith(DRAFT):
        return ids, content
    stem = operation.name
    file = (await tenant.http.put(f"/v1/files/{stem}.csv", content=b"identity\nann\n")).raise_for_status().json()
    said = {"type": "profile", "fileName": f"{stem}.csv", "clientEmail": "data@example.org"}
    if operation.name == "ingestions_create":
        content["json"] = {"file_id": file["id"], "manifest": said}
        return ids, content
    body = {"name": f"{stem}.manifest", "content": said}
    draft = (await tenant.http.post("/v1/manifests", json=body)).raise_for_status().json()
    return ids | {"fil": file["id"], "mft": draft["id"]}, content


async def code_of(tenant: Tenant, recipient: str) -> str:
    """The code that is mailed to a recipient."""
    keys = await tenant.app.intake.keys(read(Prefix.ACCOUNT, tenant.id))
    return confirmation_code(keys.mac("recipients", read(Prefix.RECIPIENT, recipient).bytes))


async def client_with(tenant: Tenant, *scopes: str) -> httpx.AsyncClient:
    """A client whose key has these scopes only."""
    made = await tenant.http.post("/v1/api-keys", json={"name": "walk", "scopes": list(scopes)})
    headers = {"Authorization": f"Bearer {made.raise_for_status().json()['key']}"}
    return new_client(tenant.app.http_url, headers=headers)


SEGMENT = "/v1/segments/{segment_id}"
SOURCE = "/v1/data-sources/{data_source_id}"
UNUSED = {
    "connections_delete": ("con", "/v1/connections", {"name": "to be deleted"} | SERVER),
    "data_sources_delete": ("src", "/v1/data-sources", {"name": "to be deleted"}),
    "attributes_delete": ("atr", "/v1/attributes", {"name": "to be deleted"}),
}
"""What can be deleted as long as nothing uses it: its kind of id, and how to make one."""

OF_SCHEDULES = ("/schedule", "/pause", "/resume", "/runs")
DRAFT = "/v1/manifests/{manifest_id}"
DOCUMENT = document()


async def fresh_schedule(
    tenant: Tenant, operation: Operation, ids: dict[str, str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The same for an operation on a schedule: a new owner in use that has one, paused where it is to be resumed."""
    kind = "seg" if operation.path.startswith(SEGMENT) else "src"
    make = scheduled_segment if kind == "seg" else scheduled_source
    found = ids | {kind: await make(tenant, ids["con"], f"for {operation.name}".replace("_", " "))}
    if operation.path.endswith("/resume"):
        (await tenant.http.post(operation.url(found).replace("/resume", "/pause"))).raise_for_status()
    content = {"json": SCHEDULE | {"connection": ids["con"]}} if operation.method == "PUT" else operation.content()
    return found, content
