"""Traces by OpenTelemetry: of HTTP requests and of the stages of ingestions, sent where the standard's variables say.

Without the extra `otel` and OTEL_EXPORTER_OTLP_ENDPOINT spans cost next to nothing and go nowhere. A path or a query
can name a file or a person; a span has the route's pattern instead (P9).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import Span

from ingestd.domain.errors import Unavailable

THERE: Final = find_spec("opentelemetry.sdk") is not None and find_spec("opentelemetry.exporter") is not None

if THERE or TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
HIDDEN: Final = ("url.path", "url.query")
SEND_SECONDS: Final = 2
"""What one attempt to send may take, so that a collector that is away does not hold up the stop."""


def span(name: str, **attributes: str) -> AbstractContextManager[Span]:
    """Enclose a piece of work in a span; attributes are ids and codes."""
    tracer = trace.get_tracer("ingestd")
    return tracer.start_as_current_span(name, attributes=attributes, record_exception=False)


@contextmanager
def sending() -> Iterator[None]:
    """Send traces meanwhile, if OTEL_EXPORTER_OTLP_ENDPOINT says where to."""
    if not os.environ.get(ENDPOINT):
        yield
        return
    if not THERE:
        raise Unavailable(f"{ENDPOINT} is set, but the extra is not installed. Run: pip install -e '.[otel]'")
    provider = start(BatchSpanProcessor(OTLPSpanExporter(timeout=SEND_SECONDS)))
    try:
        yield
    finally:
        provider.shutdown()


def start(processor: SpanProcessor) -> TracerProvider:
    """Give all spans from now on to a processor, cleaned."""
    provider = TracerProvider(resource=Resource.create({"service.name": "ingestd"}), shutdown_on_exit=False)
    provider.add_span_processor(_cleaner())
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return provider


def _cleaner() -> SpanProcessor:
    class Cleaner(SpanProcessor):
        """Empties what can name a file or a person, before anybody else sees the span."""

        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            """Empty it; the route's pattern comes later."""
            for name in HIDDEN:
                if name in (getattr(span, "attributes", None) or {}):
                    span.set_attribute(name, "")

    return Cleaner()
