"""Deliveries: what was sent to a webhook, what came of it, and sending it again."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Tx, needs
from ingestd.api.ids import DeliveryId, WebhookId
from ingestd.api.model import In
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.notice import NoticeType
from ingestd.notify.webhooks import Code
from ingestd.store import deliveries, notices, webhooks
from ingestd.store.deliveries import Shown
from ingestd.store.engine import utc_now
from ingestd.store.outgoing import DeliveryState

router = Router(prefix="/v1/webhooks/{webhook_id}", tags=["Webhooks"])

_LONGEST: Final = timedelta(days=30)


class AttemptOut(BaseModel):
    """One attempt: what came of it, the receiver's status if there was one, and how long it took."""

    at: Moment
    code: Code
    status: int | None
    ms: int


class DeliveryOut(BaseModel):
    """One event on its way to a webhook; `message_id` is the `webhook-id` it is sent with."""

    id: str
    message_id: str
    type: NoticeType
    state: DeliveryState
    failures: int
    attempts: list[AttemptOut]
    next_attempt_at: Moment | None
    created_at: Moment
    data: dict[str, Any]


class DeliveryPage(Page[DeliveryOut]):
    """Deliveries, the newest event first."""


class RecoverIn(In):
    """Since when to send again what could not be delivered."""

    since: Moment


class RecoverOut(BaseModel):
    """How many deliveries began anew."""

    deliveries: Annotated[int, Field(ge=0)]


def _shown(row: Shown) -> DeliveryOut:
    delivery, notice = row
    return DeliveryOut(
        id=ids.show(Prefix.DELIVERY, delivery.id),
        message_id=ids.show(Prefix.MESSAGE, notice.id),
        type=NoticeType(notice.type),
        state=DeliveryState(delivery.state),
        failures=delivery.failures,
        attempts=[AttemptOut.model_validate(each) for each in delivery.attempts],
        next_attempt_at=delivery.next_attempt_at,
        created_at=notice.created_at,
        data=notice.data,
    )


@router.get(
    "/deliveries",
    operation_id="deliveries_list",
    summary="List a webhook's deliveries",
    dependencies=[needs(Scope.WEBHOOKS_READ)],
)
async def list_all(
    webhook_id: WebhookId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(deliveries.SORTS, "-created_at"))],
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
) -> DeliveryPage:
    """What was, or will be, sent to the webhook."""
    webhook = await webhooks.get(tx, caller.account_id, webhook_id)
    rows = await deliveries.page(tx, webhook, asked.cut, state=state)
    return asked.page(DeliveryPage, rows, _shown, keyed=lambda row: row[0])


@router.get(
    "/deliveries/{delivery_id}",
    operation_id="deliveries_get",
    summary="Show a delivery",
    dependencies=[needs(Scope.WEBHOOKS_READ)],
)
async def get_one(webhook_id: WebhookId, delivery_id: DeliveryId, tx: Reading, caller: Caller) -> DeliveryOut:
    """One delivery with its newest attempts."""
    webhook = await webhooks.get(tx, caller.account_id, webhook_id)
    return _shown(await deliveries.get(tx, webhook, delivery_id))


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    operation_id="deliveries_redeliver",
    summary="Send an event again",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, tx: Tx, caller: Caller) -> DeliveryOut:
    """Begin a new series of attempts now, whatever came of the last; the event keeps its `webhook-id`."""
    webhook = await webhooks.get(tx, caller.account_id, webhook_id)
    await deliveries.redeliver(tx, webhook, delivery_id, now=utc_now())
    audit.note(tx, caller, "delivery.redelivered", ids.show(Prefix.DELIVERY, delivery_id))
    return _shown(await deliveries.get(tx, webhook, delivery_id))


@router.post(
    "/recover",
    operation_id="webhooks_recover",
    summary="Send again what could not be delivered",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def recover(webhook_id: WebhookId, body: RecoverIn, tx: Tx, caller: Caller) -> RecoverOut:
    """Begin a new series of attempts for all that was given up since then, at most 30 days back."""
    webhook = await webhooks.get(tx, caller.account_id, webhook_id)
    now = utc_now()
    count = await deliveries.recover(tx, webhook, since=max(body.since, now - _LONGEST), now=now)
    audit.note(tx, caller, "webhook.recovered", ids.show(Prefix.WEBHOOK, webhook_id))
    return RecoverOut(deliveries=count)


@router.post(
    "/test",
    status_code=202,
    operation_id="webhooks_test",
    summary="Send a test event",
    dependencies=[needs(Scope.WEBHOOKS_WRITE)],
)
async def test(webhook_id: WebhookId, tx: Tx, caller: Caller) -> DeliveryOut:
    """Post a `webhook.test` to this webhook, whatever events it wants; the answer is its delivery."""
    webhook = await webhooks.get(tx, caller.account_id, webhook_id, lock=True)
    deliveries.check_enabled(webhook)
    data = {"id": ids.show(Prefix.WEBHOOK, webhook_id)}
    notice = notices.new(caller.account_id, NoticeType.WEBHOOK_TEST, data, now=utc_now())
    await tx.execute(notices.adding(notice, only=[webhook_id]))
    audit.note(tx, caller, "webhook.tested", ids.show(Prefix.WEBHOOK, webhook_id))
    return _shown(await deliveries.of_notice(tx, webhook, notice.id))
