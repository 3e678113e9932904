"""The manifest: strict JSON that says what a data file is (S105 to S117, D26, B40 to B50)."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from email_validator import EmailNotValidError, validate_email

from ingestd.domain.column import (
    MANIFEST_TYPES,
    MAX_NAME_LENGTH,
    OPERATION_SUFFIX,
    DataType,
    name_problem,
    operation_base,
)
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.notice import few
from ingestd.domain.plan import RESTRICTED_EVENTS, ColumnRule, Format, Limits, Plan, Target

SUFFIX: Final = ".manifest"
MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 8
MAX_COLUMNS: Final = 5000
MOST_TOLD: Final = 100
"""Problems of one manifest that are told; whoever has more needs another generator, not a longer list."""

TARGETS: Final = {"profile": Target.PROFILES, "event": Target.EVENTS}
"""The types of a manifest (S109); a further type is one more entry."""

_KEYS: Final = {"type", "fileName", "clientEmail", "columns"}
_COLUMN_KEYS: Final = {"ctName", "name", "dataType"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that holds together: what it names, and the rule of each column it maps."""

    file_name: str
    client_email: str
    target: Target
    columns: Mapping[str, ColumnRule]
    warnings: tuple[str, ...] = ()

    def plan(self, limits: Limits | None = None, restricted_events: tuple[str, ...] = RESTRICTED_EVENTS) -> Plan:
        """The Plan of the data file."""
        return Plan(
            format=Format.CSV,
            target=self.target,
            columns=dict(self.columns),
            limits=limits or Limits(),
            restricted_events=restricted_events,
        )


def is_manifest(file_name: str) -> bool:
    """Whether a file of this name is a manifest: its ending counts in any case, as that of a data file does (S106)."""
    return file_name.lower().endswith(SUFFIX)


def parse(text: bytes) -> Manifest:
    """Read a manifest, or raise Invalid (code `manifest_incorrect`) with every problem and where it is."""
    document = _load(text)
    problems: list[Problem] = []
    if not isinstance(document, dict):
        raise _incorrect([Problem("", "type", "The manifest must be one JSON object.")])
    target = _target(document, problems)
    file_name = _text(document, "fileName", problems)
    client_email = _address(document, problems)
    columns = _columns(document.get("columns", {}), problems)
    if problems:
        raise _incorrect(problems)
    assert target is not None
    return Manifest(unicodedata.normalize("NFC", file_name), client_email, target, columns, _unknown_keys(document))


def named_address(text: bytes) -> str:
    """What a manifest, right or wrong, says in `clientEmail`; blank where that cannot be read."""
    try:
        document = _load(text)
    except Invalid:
        return ""
    return _text(document, "clientEmail", []) if isinstance(document, dict) else ""


def _incorrect(problems: list[Problem]) -> Invalid:
    told = problems[:MOST_TOLD]
    if rest := len(problems) - len(told):
        told.append(Problem("", "too_many", f"There are {rest} more problems."))
    return Invalid("Incorrect details in manifest file", code="manifest_incorrect", problems=tuple(told))


def _refuse(code: str, detail: str) -> Invalid:
    return _incorrect([Problem("", code, detail)])


def _load(text: bytes) -> Any:
    if len(text) > MAX_BYTES:
        raise _refuse("too_large", f"The manifest has {len(text)} bytes; {MAX_BYTES} are allowed.")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refuse("encoding", f"The manifest is not UTF-8 (byte {error.start}).") from None
    if _depth(decoded) > MAX_DEPTH:
        raise _refuse("too_deep", f"The manifest is nested deeper than {MAX_DEPTH} levels.")
    try:
        return json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=_number,
        )
    except json.JSONDecodeError as error:
        raise _refuse("json", f"Not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None


def _depth(text: str) -> int:
    """The deepest nesting, found without parsing; brackets inside strings are skipped."""
    depth = deepest = 0
    quoted = escaped = False
    for char in text:
        if quoted:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _refuse("duplicate_key", f"The key {key[:60]!r} stands twice in one object.")
        if any(unicodedata.category(char) == "Cs" or char == "\0" for char in key):
            raise _refuse("characters", "A key holds a NUL or a lone surrogate.")
        found[key] = value
    return found


def _no_constant(word: str) -> Any:
    raise _refuse("json", f"{word} is not JSON.")


def _number(word: str) -> int:
    """Any number means nothing where the key is unknown, and is of the wrong type elsewhere (D26).

    One that no other program could read either is refused.
    """
    if math.isinf(float(word)):
        raise _refuse("json", f"{word[:20]} is too large for a number.")
    return 0


def _unknown_keys(document: dict[str, Any]) -> tuple[str, ...]:
    """A warning for each key that means nothing (D26)."""
    keys = [f"The key {key[:60]!r} is unknown and was ignored." for key in document if key not in _KEYS]
    entries = document.get("columns", {})
    inner = (key for entry in entries.values() if isinstance(entry, dict) for key in entry if key not in _COLUMN_KEYS)
    keys += [f"The key {key[:60]!r} of a column is unknown and was ignored." for key in dict.fromkeys(inner)]
    return few(keys)


def _text(document: dict[str, Any], key: str, problems: list[Problem]) -> str:
    value = document.get(key)
    if key not in document:
        problems.append(Problem(f"/{key}", "missing", f"The key {key!r} is mandatory."))
    elif not isinstance(value, str) or not value.strip():
        problems.append(Problem(f"/{key}", "type", f"{key!r} must be a text that is not blank."))
    elif any(unicodedata.category(char) in {"Cc", "Cs"} for char in value):
        problems.append(Problem(f"/{key}", "characters", f"{key!r} holds a control character."))
    else:
        return value
    return ""


def _address(document: dict[str, Any], problems: list[Problem]) -> str:
    value = _text(document, "clientEmail", problems)
    try:
        if value:
            validate_email(value, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        problems.append(Problem("/clientEmail", "address", "'clientEmail' must be one e-mail address."))
    return value


def _target(document: dict[str, Any], problems: list[Problem]) -> Target | None:
    value = _text(document, "type", problems)
    if value and value not in TARGETS:
        words = " or ".join(repr(word) for word in TARGETS)
        problems.append(Problem("/type", "unknown", f"'type' must be {words}."))
    return TARGETS.get(value)


def _columns(value: Any, problems: list[Problem]) -> dict[str, ColumnRule]:
    if not isinstance(value, dict):
        problems.append(Problem("/columns", "type", "'columns' must be an object: header to rule."))
        return {}
    if len(value) > MAX_COLUMNS:
        problems.append(
            Problem("/columns", "too_many", f"'columns' has {len(value)} entries; {MAX_COLUMNS} are allowed.")
        )
        return {}
    rules: dict[str, ColumnRule] = {}
    targets: dict[str, str] = {}
    for raw, entry in value.items():
        header = unicodedata.normalize("NFC", raw)
        pointer = "/columns/" + raw[:MAX_NAME_LENGTH].replace("~", "~0").replace("/", "~1")
        rule = _column(entry, pointer, problems)
        if rule is None:
            continue
        if header in rules:
            problems.append(Problem(pointer, "duplicate_key", "Two entries name the same header."))
        target = rule.name or header
        if target in targets:
            problems.append(
                Problem(pointer, "duplicate_target", f"{target[:MAX_NAME_LENGTH]!r} is the target of two columns.")
            )
        targets[target] = header
        rules[header] = rule
    return rules


def _column(entry: Any, pointer: str, problems: list[Problem]) -> ColumnRule | None:
    if not isinstance(entry, dict):
        problems.append(Problem(pointer, "type", "A column's rule must be an object."))
        return None
    name = entry.get("ctName", entry.get("name"))
    data_type = entry.get("dataType", DataType.STRING)
    before = len(problems)
    if "ctName" in entry and "name" in entry:
        problems.append(Problem(pointer, "duplicate_key", "Give 'ctName' or 'name', not both."))
    if name is not None:
        problems += _name_problems(name, pointer)
    if not isinstance(data_type, str) or data_type not in MANIFEST_TYPES:
        words = ", ".join(MANIFEST_TYPES)
        problems.append(Problem(f"{pointer}/dataType", "unknown", f"'dataType' must be one of {words}."))
    if len(problems) > before:
        return None
    return ColumnRule(name=name and unicodedata.normalize("NFC", name), type=DataType(data_type))


def _name_problems(name: Any, pointer: str) -> list[Problem]:
    where = f"{pointer}/ctName"
    if not isinstance(name, str):
        return [Problem(where, "type", "'ctName' must be a text.")]
    if problem := name_problem(name):
        return [Problem(where, "name", f"The name {problem}.")]
    if name.startswith("$") or operation_base(name) is not None:
        return [Problem(where, "reserved", f"A property may not begin with '$' or end in {OPERATION_SUFFIX!r}.")]
    return []
