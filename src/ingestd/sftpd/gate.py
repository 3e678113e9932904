"""Who may connect at all: so many at once, in all and from one address; nobody who failed too often (T29, T31, T32).

What is refused here is refused before the key exchange, which is what costs. An address is a client's, or that of
everybody behind a balancer: name that one in the setting `exempt`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address

from ingestd.settings import SftpSettings


class Refusal(StrEnum):
    """Why a connection is refused."""

    PENALTY = "penalty"
    TOO_MANY = "too_many"
    TOO_MANY_OF_ADDRESS = "too_many_of_address"
    TOO_MANY_STRANGERS = "too_many_strangers"
    TOO_MANY_STRANGERS_OF_ADDRESS = "too_many_strangers_of_address"


@dataclass
class Gate:
    """Counts connections by address, and the strangers among them, who have not logged in yet."""

    settings: SftpSettings
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    _open: Counter[str] = field(default_factory=Counter)
    _strangers: Counter[str] = field(default_factory=Counter)
    _penalties: dict[str, float] = field(default_factory=dict)
    """Until when each address does penance."""

    def enter(self, address: str) -> Refusal | None:
        """Let a stranger in, or tell why not."""
        refusal = None if self._is_exempt(address) else self._refusal(address)
        if refusal is None:
            self._open[address] += 1
            self._strangers[address] += 1
        return refusal

    def know(self, address: str) -> None:
        """Note that a stranger has logged in."""
        self._strangers -= Counter([address])

    def leave(self, address: str, *, known: bool, failed: bool) -> None:
        """Note the end of a connection; a stranger's is a penalty for the address if keys were refused."""
        self._open -= Counter([address])
        if not known:
            self._strangers -= Counter([address])
        if failed and not known:
            self._punish(address)

    def _refusal(self, address: str) -> Refusal | None:
        settings, strangers = self.settings, self._strangers.total()
        if self._penalties.get(address, 0) - self.clock() >= settings.penalty_refused_from:
            return Refusal.PENALTY
        if self._open.total() >= settings.connections:
            return Refusal.TOO_MANY
        if self._open[address] >= settings.connections_per_address:
            return Refusal.TOO_MANY_OF_ADDRESS
        if self._strangers[address] >= settings.strangers_per_address:
            return Refusal.TOO_MANY_STRANGERS_OF_ADDRESS
        few = settings.strangers_per_address  # up to so many nobody is refused by chance
        if self.chance() < (strangers - few) / max(1, settings.strangers - few):
            return Refusal.TOO_MANY_STRANGERS
        return None

    def _punish(self, address: str) -> None:
        now = self.clock()
        self._penalties = {each: until for each, until in self._penalties.items() if until > now}
        until = self._penalties.get(address, now) + self.settings.penalty
        self._penalties[address] = min(until, now + self.settings.penalty_longest)

    def _is_exempt(self, address: str) -> bool:
        client = ip_address(address.partition("%")[0])
        return any(client in network for network in self.settings.exempt)
