"""The consumers of examples/webhooks, run as they are: what is genuine is handled once, all else is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from ingestd import egress
from ingestd.notify import webhooks
from ingestd.notify.webhooks import Message, Sender

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "python": [sys.executable, str(ROOT / "examples/webhooks/consumer.py")],
    "typescript": [str(Path(sys.executable).parent / "node"), str(ROOT / "examples/webhooks/consumer.ts")],
}
SENDER = Sender(allow=egress.parse_allow(["127.0.0.0/8:*"]))


@contextmanager
def running(program: str, secret: str):
    """A consumer: its URL, and what gives the next line it prints. What starts Node is a process of its own."""
    environment = {"WEBHOOK_SECRET": secret, "PORT": "0"}
    with subprocess.Popen(
        PROGRAMS[program], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            yield f"http://127.0.0.1:{started.stdout.readline().split()[-1]}/", started.stdout.readline
        finally:
            os.killpg(started.pid, signal.SIGKILL)


@pytest.mark.rule("S136")
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_consumer_handles_what_is_genuine_once_and_refuses_all_else(program: str):
    secret, newer, strange = (webhooks.new_secret() for _ in range(3))

    with running(program, secret) as (url, line):

        async def status(number: int, *keys: str, late: timedelta = timedelta(0)) -> int | None:
            now = datetime.now(UTC)
            body = webhooks.body("ingestion.completed", now, {"id": f"ing_{number}", "name": "é"})
            message = Message(id=UUID(int=number), delivery_id=UUID(int=9), url=url, body=body, keys=keys)
            return (await SENDER.send(message, now=now - late)).status

        assert await status(1, secret) == 204
        assert await status(1, secret) == 204
        assert await status(2, newer, secret) == 204, "both sign while a secret is rotated"
        assert await status(3, strange) == 401
        assert await status(4, secret, late=timedelta(minutes=6)) == 401
        assert await status(5, secret) == 204
        handled = [(await asyncio.to_thread(line)).split() for _ in range(3)]
    assert handled == [["ingestion.completed", f"ing_{n}"] for n in (1, 2, 5)]
