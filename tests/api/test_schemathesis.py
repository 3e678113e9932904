"""Schemathesis makes requests up from the document and holds the answers to it."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.thorough import examples

LEFT_OUT = "positive_data_acceptance"
"""No schema can say which cursor is signed, which ETag is right or which host may be posted to."""

QUICK = examples(1) == 1
SETTINGS = ("--config-file", str(Path(__file__).with_name("schemathesis.toml"))) if QUICK else ()
PHASES = "coverage,fuzzing" if QUICK else "coverage,fuzzing,stateful"
"""Sequences of requests, each made up from the answers before it, take minutes: `make nightly` has them."""


@pytest.mark.long
@pytest.mark.timeout(600 * examples(1))
async def test_no_request_gets_an_answer_that_the_document_does_not_have(tenant, tmp_path):
    await tenant.http.get("/openapi.json")  # made now: the first answer may take longer than schemathesis waits
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", *SETTINGS, "run", f"{tenant.app.http_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {tenant.key}", "--checks", "all", "--exclude-checks", LEFT_OUT),
        *("--phases", PHASES, "--max-examples", str(examples(2)), "--generation-database", "none"),
        *("--request-timeout", "30", "--no-color", "--warnings", "off"),
        cwd=tmp_path,  # where it keeps its notes
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await running.communicate()
    assert running.returncode == 0, told.decode()[-8000:]
