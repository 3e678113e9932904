"""Traces: requests and stages have spans, which name neither files nor people (P9)."""

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ingestd import tracing
from ingestd.domain.errors import Unavailable

CANARY = "canary-4711"


@pytest.fixture(scope="module")
def spans():
    """All spans from here on; there is one provider in a process."""
    exporter = InMemorySpanExporter()
    provider = tracing.start(SimpleSpanProcessor(exporter))
    yield exporter.get_finished_spans
    provider.shutdown()


@pytest.mark.threat("T101", "T102")
async def test_requests_and_stages_have_spans_without_names_of_files_or_people(spans, tenant):
    await tenant.http.get(f"/v1/profiles/{CANARY}/events", params={"cursor": CANARY})
    await tenant.push(f"identity\n{CANARY}\n".encode())
    told = str([span.to_json() for span in spans()])
    assert CANARY not in told
    assert tenant.key not in told
    assert {"checking", "applying"} <= {span.name for span in spans()}
    assert "/v1/ingestions/{ingestion_id}" in told


def test_an_endpoint_without_the_extra_is_an_error_with_its_remedy(monkeypatch):
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "THERE", False)
    with pytest.raises(Unavailable, match=r"pip install -e '\.\[otel\]'"), tracing.sending():
        pass
