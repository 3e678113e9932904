"""Webhooks: where an account is told what happens; the secret is shown once (S136)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from ingestd import egress
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import NoticeType
from ingestd.notify.webhooks import new_secret, secret_context
from ingestd.store import webhooks
from ingestd.store.engine import new_id, utc_now
from ingestd.store.webhooks import Webhook

router = Router(prefix="/v1/webhooks", tags=["Webhooks"])


class WebhookIn(BaseModel):
    """A new webhook; `events` null means all of them."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=120)]
    url: Annotated[str, Field(max_length=2048, description="https, on port 443 or 8443, at a public address.")]
    events: list[NoticeType] | None = None


class WebhookOut(BaseModel):
    """A webhook, without its secret."""

    id: str
    name: str
    url: str
    events: list[NoticeType] | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime


class WebhookMade(WebhookOut):
    """A webhook as it is shown once: `secret` verifies the signatures."""

    secret: str


def _shown(webhook: Webhook) -> dict[str, object]:
    return {
        "id": ids.show(Prefix.WEBHOOK, webhook.id),
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "created_at": webhook.created_at,
    }


@router.post(
    "",
    status_code=201,
    operation_id="webhooks_create",
    summary="Register a webhook",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def create(
    body: WebhookIn,
    tx: Tx,
    service: Service,
    response: Response,
    caller: Caller,
) -> WebhookMade:
    """Register an address; each event is posted to it, signed as Standard Webhooks 1.0 has it."""
    target = egress.parse_url(body.url, service.egress_allow)
    await egress.resolve(target.host, target.port, purpose=target.purpose, allow=service.egress_allow)
    keys = await service.intake.keys(caller.account_id)
    webhook_id, secret, now = new_id(), new_secret(), utc_now()
    webhook = Webhook(
        id=webhook_id,
        account_id=caller.account_id,
        name=body.name,
        url=target.url,
        secret=keys.seal_secret(secret_context(webhook_id), secret.encode()),
        events=body.events,
        enabled=True,
        created_at=now,
        updated_at=now,
    )
    tx.add(webhook)
    await tx.flush()
    response.headers["Cache-Control"] = "no-store"
    return WebhookMade.model_validate(_shown(webhook) | {"secret": secret})


@router.get("", operation_id="webhooks_list", summary="List webhooks", dependencies=[needs(Scope.WEBHOOKS_READ)])
async def list_all(tx: Reading, caller: Caller) -> list[WebhookOut]:
    """The webhooks of the account, newest first."""
    found = await webhooks.page(tx, caller.account_id, limit=200)
    return [WebhookOut.model_validate(_shown(webhook)) for webhook in found]


@router.delete(
    "/{webhook_id}",
    status_code=204,
    operation_id="webhooks_delete",
    summary="Delete a webhook",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def delete(webhook_id: str, tx: Tx, caller: Caller) -> None:
    """Forget a webhook and what waits for it."""
    webhook = await webhooks.get(tx, caller.account_id, ids.read(Prefix.WEBHOOK, webhook_id))
    await tx.delete(webhook)
