"""What the tests of the API share."""

from __future__ import annotations

import asyncio

import pytest_asyncio

from ingestd.app.ground import Base
from ingestd.app.service import App
from ingestd.cli import accounts


@pytest_asyncio.fixture
async def operator(ground: Base, app: App) -> str:
    """The key of an operator."""
    _, key = await asyncio.to_thread(accounts.make, ground, name="operator", email_domains=[], admin=True)
    return key
