"""What the demo shows of an upload."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ingestd.cli.demo_upload import show_upload


@pytest.mark.rule("S58", "S61", "S75")
async def test_an_upload_is_shown_with_its_mapping_a_masked_value_that_may_be_read_and_a_filter(tenant, receiver):
    written = io.StringIO()
    await show_upload(tenant.http, receiver, Console(file=written, width=120))
    text = written.getvalue()
    assert ["phone", "hm", "PHONE", "yes"] in [line.replace("│", " ").split() for line in text.splitlines()]
    _, masked, read = text.split("One of them, for a key that has")
    assert '"hm": "***"' in masked
    assert '"hm": "+919972752991"' in read
    assert "above 10 has 2 members; after a file with one more, 3." in text
