"""Examples for the document: an answer to each operation, as a real service gave it (`make examples`)."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

EXAMPLES: Final[dict[str, Any]] = json.loads((resources.files("ingestd.api") / "examples.json").read_bytes())
"""Answers by the operation's id."""
