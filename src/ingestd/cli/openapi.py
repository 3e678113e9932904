"""`ingestd openapi`: print the OpenAPI document."""

from __future__ import annotations

import json

from ingestd.api.app import document


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API as JSON.

    Example: ingestd openapi > openapi.json
    """
    print(json.dumps(document(), indent=2, ensure_ascii=False))
