"""The manifest as a JSON Schema, for editors and for scripts that write manifests (S105 to S113)."""

from __future__ import annotations

from typing import Any, Final

from ingestd.domain.column import MANIFEST_TYPES, MAX_NAME_LENGTH
from ingestd.domain.manifest import MAX_COLUMNS, TARGETS

_NAME: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_LENGTH,
    "description": "The attribute or property that the column becomes; without it, the column keeps its own name.",
}

MANIFEST_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Manifest",
    "description": "Says what a data file is. Unknown keys are a warning.",
    "type": "object",
    "required": ["type", "fileName", "clientEmail"],
    "properties": {
        "type": {"enum": sorted(TARGETS), "description": "What the rows of the file become."},
        "fileName": {"type": "string", "pattern": r"\S", "description": "The name of the data file, a CSV."},
        "clientEmail": {
            "type": "string",
            "format": "email",
            "description": "Who is told: one of the account's recipients, or an address at a domain that it allows.",
        },
        "columns": {
            "type": "object",
            "maxProperties": MAX_COLUMNS,
            "description": "The rules of columns, by their headers; a column without one is a STRING of its own name.",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "ctName": _NAME,
                    "name": _NAME | {"description": "The same as ctName; give one of the two."},
                    "dataType": {"enum": [str(word) for word in MANIFEST_TYPES], "default": "STRING"},
                },
                "not": {"required": ["ctName", "name"]},
            },
        },
    },
    "examples": [
        {
            "type": "profile",
            "fileName": "profiles.csv",
            "clientEmail": "data@example.org",
            "columns": {"age": {"ctName": "Age", "dataType": "INTEGER"}},
        }
    ],
}
