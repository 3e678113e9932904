"""Turns: what is done once in an account's order, between its ingestions, or after one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from ingestd import telemetry
from ingestd.ingest import filters, sealing
from ingestd.ingest.engine import Stopping
from ingestd.ingest.giving_up import passes
from ingestd.ingest.pool import PoolClosed
from ingestd.ingest.runtime import Runtime

log = telemetry.logger(__name__)


def seal(runtime: Runtime, account_id: UUID) -> None:
    """Seal what is stored of an account's personal attributes; raise Stopping where the process goes down first."""
    with telemetry.context(account=str(account_id)):
        take_turn(
            runtime,
            "seal",
            partial(sealing.seal_account, runtime.sql, runtime.pool, runtime.place, runtime.keyring, account_id),
            or_else=partial(sealing.give_up, runtime.sql, account_id),
        )


def compute_filter(runtime: Runtime, segment_id: UUID) -> None:
    """Compute the members of a filter segment that was activated; raise Stopping as `seal` does."""
    with telemetry.context(segment=str(segment_id)):
        take_turn(
            runtime,
            "filter",
            partial(filters.recompute_one, runtime.sql, runtime.keyring, segment_id),
            or_else=partial(filters.give_up, runtime.sql, segment_id),
        )


def take_turn(runtime: Runtime, turn: str, act: Callable[[], None], *, or_else: Callable[[], None]) -> None:
    """Do what can be repeated until it has been done once; `or_else` after too many failures that do not pass (P6).

    The account's ingestions wait for its turns, so none is taken for ever.
    """
    failures = 0
    for _ in runtime.tries():
        try:
            if failures < runtime.settings.attempts:
                act()
                return
            or_else()
            runtime.metrics.given_up.labels(turn).inc()
            log.error("turn_given_up", turn=turn)
        except PoolClosed:
            raise Stopping from None
        except Exception as fault:
            failures += not passes(fault)
            log.warning("turn_interrupted", turn=turn, failures=failures, exc_info=fault)
        else:
            return
