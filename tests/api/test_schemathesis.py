"""Schemathesis makes requests up from the document and holds the answers to it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from tests.conftest import new_client
from tests.thorough import examples

from ingestd.cli import accounts

LEFT_OUT = "positive_data_acceptance,ignored_auth"
"""The first knows statuses only: `acceptance.py` has a check in its place that knows our problems. The second sends
more wrong keys than a minute lets through: test_walk asks every operation without a key."""

ENDLESS = "webhook_events_follow"
"""An answer that never ends: see test_webhook_events."""

CONFIG = """
rate-limit = "5500/m" # below what a key may do

[parameters]
"header.Account-Id" = "${ACCOUNT}" # one that is made up is nobody's, and nearly every request would end there

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502] # 502: somebody else's server was not there

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428, 429, 502] # 412: that came first
"""
FOR_NOW = """
# A value of every kind in every place: of what is only read that is a third of all cases, PATCH has the fields of POST
# once more, and conditions nest, so that there are five thousand of each of three operations. `make nightly` has them;
# all are asked with some values.
[[operations]]
include-method = ["GET", "PATCH"]
phases.coverage.enabled = false

[[operations]]
include-operation-id = ["data_sources_upload", "filters_create", "filters_preview", "segments_put_condition"]
phases.coverage.enabled = false
"""

QUICK = examples(1) == 1
SEED = ("--seed", "1") if QUICK else ()
PHASES = "coverage,fuzzing" if QUICK else "coverage,fuzzing,stateful"
"""Sequences of requests, each made up from the answers before it, take minutes: `make nightly` has them."""


@pytest.mark.long
@pytest.mark.timeout(600 * examples(1))
async def test_no_request_gets_an_answer_that_the_document_does_not_have(ground, app, tmp_path):
    account, key = await asyncio.to_thread(accounts.make, ground, name="made up", email_domains=[], admin=True)
    async with new_client(app.http_url) as http:
        await http.get("/openapi.json")  # made now: the first answer may take longer than schemathesis waits
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG + FOR_NOW * QUICK)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{app.http_url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--checks", "all", "--exclude-checks", LEFT_OUT, "--exclude-operation-id", ENDLESS),
        *("--phases", PHASES, "--max-examples", str(examples(2)), "--generation-database", "none", *SEED),
        *("--request-timeout", "30", "--no-color", "--warnings", "off"),
        cwd=tmp_path,  # where it keeps its notes
        env=os.environ | {"ACCOUNT": account, "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("acceptance.py"))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await running.communicate()
    assert running.returncode == 0, told.decode()[-8000:]
