"""Webhooks: where an account is told what happens; the secret is shown once (S136)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from ingestd import egress
from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Parts, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import WebhookId
from ingestd.api.model import A_DAY, STRICT, In, Name, Out, RotateIn
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.notice import NoticeType
from ingestd.keyring import AccountKeys
from ingestd.notify.webhooks import new_secret, seal_headers, secret_context
from ingestd.store import accounts, choices, webhooks
from ingestd.store.engine import new_id, utc_now
from ingestd.store.webhooks import Disabled, Webhook

router = Router(prefix="/v1/webhooks", tags=["Webhooks"])

Value = TypeVar("Value")

MAX_HEADERS: Final = 10

Url = Annotated[
    str,
    Field(
        max_length=2048,
        description="https, on port 443 or 8443, at a public address.",
        json_schema_extra={"format": "uri"},
    ),
]
Events = Annotated[list[NoticeType], Field(max_length=len(NoticeType))]


def _free(headers: dict[str, Value]) -> dict[str, Value]:
    """The headers by their names in small letters; ValueError for one that is the service's to set (T15)."""
    named = {name.lower(): value for name, value in headers.items()}
    if len(named) < len(headers):
        raise ValueError("name a header twice")
    taken = [name for name in named if name in webhooks.RESERVED or name.startswith(webhooks.RESERVED_PREFIXES)]
    if taken:
        raise ValueError(f"may not set {', '.join(sorted(taken))}")
    return named


HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[!-~]([ \t!-~]{0,1998}[!-~])?$")]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(
        max_length=MAX_HEADERS,
        description="Sent with each event. The values are never shown again.",
        json_schema_extra={"additionalProperties": False},  # the pattern of names is all there may be
    ),
    AfterValidator(_free),
]
HeadersPatch = Annotated[
    dict[HeaderName, HeaderValue | None],
    Field(
        max_length=MAX_HEADERS,
        description="Set beside those that there are; null takes one away, and null instead of all of them, all.",
        json_schema_extra={"additionalProperties": False},
    ),
    AfterValidator(_free),
]


class WebhookIn(In):
    """A new webhook; `events` null means all of them, and an empty list none but what it is chosen for (S136)."""

    name: Name
    url: Url
    events: Events | None = None
    headers: Headers = Field({})


@with_config(STRICT)
class WebhookPatch(TypedDict, total=False):
    """A change of a webhook; `enabled` true sends to it again, null in `events` sends all of them."""

    name: Name
    url: Url
    events: Events | None
    headers: HeadersPatch | None
    enabled: bool


class WebhookOut(Out):
    """A webhook, without its secret; of its headers only the names."""

    name: str
    url: str
    events: list[NoticeType] | None
    headers: list[str]
    enabled: bool
    disabled_reason: Disabled | None
    failing_since: Moment | None
    previous_secret_until: Moment | None
    created_at: Moment
    updated_at: Moment


class WebhookMade(WebhookOut):
    """A webhook as it is shown once: `secret` verifies the signatures."""

    secret: str


class WebhookPage(Page[WebhookOut]):
    """Webhooks."""


def _shown(webhook: Webhook) -> WebhookOut:
    return WebhookOut(
        id=ids.show(Prefix.WEBHOOK, webhook.id),
        name=webhook.name,
        url=webhook.url,
        events=webhook.events,
        headers=sorted(webhook.headers),
        enabled=webhook.enabled,
        disabled_reason=webhook.disabled_reason,
        failing_since=webhook.failing_since,
        previous_secret_until=webhook.previous_until,
        created_at=webhook.created_at,
        updated_at=webhook.updated_at,
    )


async def _reached(body: WebhookIn, request: Request, service: Service) -> str:
    """The URL of a new webhook, looked up before the transaction begins: none waits for a name server."""
    return await _checked(body.url, request, service)


@router.post(
    "",
    status_code=201,
    operation_id="webhooks_create",
    summary="Register a webhook",
    dependencies=[needs(Scope.WEBHOOKS_WRITE), NO_STORE],
)
async def create(
    url: Annotated[str, Depends(_reached)],
    body: WebhookIn,
    *,
    tx: Tx,
    service: Service,
    caller: Caller,
    response: Response,
) -> WebhookMade:
    """Register an address; each event is posted to it, signed as Standard Webhooks 1.0 has it."""
    keys = await service.intake.keys(caller.account_id, tx)
    webhook_id, secret, now = new_id(), new_secret(), utc_now()
    webhook = Webhook(
        id=webhook_id,
        account_id=caller.account_id,
        name=body.name,
        url=url,
        secret=keys.seal_secret(secret_context(webhook_id), secret.encode()),
        events=body.events,
        headers=seal_headers(keys, webhook_id, body.headers),
        enabled=True,
        created_at=now,
        updated_at=now,
    )
    await webhooks.add(tx, webhook)
    made = _shown(webhook)
    audit.note(tx, caller, "webhook.created", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return WebhookMade(**made.model_dump(), secret=secret)


@router.get("", operation_id="webhooks_list", summary="List webhooks", dependencies=[needs(Scope.WEBHOOKS_READ)])
async def list_all(
    tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(webhooks.SORTS, "-created_at"))]
) -> WebhookPage:
    """The webhooks of the account, newest first."""
    return asked.page(WebhookPage, await webhooks.page(tx, caller.account_id, asked.cut), _shown)


@router.get(
    "/{webhook_id}", operation_id="webhooks_get", summary="Show a webhook", dependencies=[needs(Scope.WEBHOOKS_READ)]
)
async def get_one(webhook_id: WebhookId, tx: Reading, caller: Caller) -> WebhookOut:
    """One webhook, and why it is disabled if it is."""
    return _shown(await webhooks.get(tx, caller.account_id, webhook_id))


@router.patch(
    "/{webhook_id}",
    operation_id="webhooks_change",
    summary="Change a webhook",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def change(  # noqa: PLR0913 -- what FastAPI fills in
    webhook_id: WebhookId,
    body: WebhookPatch,
    *,
    request: Request,
    tx: Tx,
    service: Service,
    caller: Caller,
    match: IfMatch,
) -> WebhookOut:
    """Rename, move, enable or disable it, or choose other events; headers are changed one by one.

    What waits goes to the new address.
    """
    url = await _checked(body["url"], request, service) if "url" in body else None
    keys = await service.intake.keys(caller.account_id, tx)
    webhook = await webhooks.get(tx, caller.account_id, webhook_id, lock=True)
    before = _shown(webhook)
    match.check(before)
    webhook.name = body.get("name", webhook.name)
    webhook.url = url or webhook.url
    if "events" in body:
        webhook.events = None if body["events"] is None else [str(each) for each in body["events"]]
    if "headers" in body:
        webhook.headers = _merged(webhook.headers, body["headers"], keys, webhook_id)
    if "enabled" in body and body["enabled"] != webhook.enabled:
        webhook.enable() if body["enabled"] else webhook.disable()
    return _changed(tx, caller, webhook, before)


@router.post(
    "/{webhook_id}/secret/rotate",
    operation_id="webhooks_rotate_secret",
    summary="Replace a webhook's secret",
    dependencies=[needs(Scope.WEBHOOKS_WRITE), NO_STORE],
)
async def rotate_secret(
    webhook_id: WebhookId, body: RotateIn = A_DAY, *, tx: Tx, service: Service, caller: Caller
) -> WebhookMade:
    """Give it a new secret, in this answer only; until the grace is over (a day, if unsaid) both sign."""
    keys = await service.intake.keys(caller.account_id, tx)
    webhook = await webhooks.get(tx, caller.account_id, webhook_id, lock=True)
    before, secret = _shown(webhook), new_secret()
    sealed = keys.seal_secret(secret_context(webhook_id), secret.encode())
    webhook.rotate(sealed, until=utc_now() + timedelta(seconds=body.grace_seconds))
    return WebhookMade(**_changed(tx, caller, webhook, before).model_dump(), secret=secret)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    operation_id="webhooks_delete",
    summary="Delete a webhook",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def delete(webhook_id: WebhookId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Forget a webhook and what waits for it."""
    await accounts.lock(tx, caller.account_id)  # as choosing does
    # Before the webhook, as whoever changes what it is chosen for holds that and then the webhook, to tell it.
    await choices.forget(tx, caller.account_id, webhook_id)
    webhook = await webhooks.get(tx, caller.account_id, webhook_id, lock=True)
    before = _shown(webhook)
    match.check(before)
    await tx.delete(webhook)
    audit.note(tx, caller, "webhook.deleted", before.id, before=before)


def _merged(
    present: dict[str, str], change: dict[str, str | None] | None, keys: AccountKeys, webhook_id: UUID
) -> dict[str, str]:
    """The sealed headers after a change of some of them."""
    if change is None:
        return {}
    kept = {name: value for name, value in present.items() if name not in change}
    given = {name: value for name, value in change.items() if value is not None}
    merged = kept | seal_headers(keys, webhook_id, given)
    if len(merged) > MAX_HEADERS:
        detail = f"A webhook has {MAX_HEADERS} headers at most; take some away."
        raise Invalid("There are too many headers.", problems=(Problem("/body/headers", "too_many", detail),))
    return merged


def _changed(tx: Tx, caller: Principal, webhook: Webhook, before: WebhookOut) -> WebhookOut:
    webhook.updated_at = utc_now()
    return audit.changed(tx, caller, "webhook.changed", before, _shown(webhook))


async def _checked(url: str, request: Request, service: Parts) -> str:
    """The URL in normal form, or why it is refused; this very server is refused too, however it is spelt (T13)."""
    target = egress.parse_url(url, service.egress_allow)
    found = await egress.resolve(target.host, target.port, purpose=target.purpose, allow=service.egress_allow)
    if any((address, target.port) == request.scope["server"] for address in found.addresses):
        raise Invalid("This is the address of the service itself.", code="url_invalid")
    return target.url
