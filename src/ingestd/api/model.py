"""What the models of requests and answers share.

A request's model is an `In` (POST, PUT), or for PATCH a `TypedDict` with `total=False` under `@with_config(STRICT)`:
what is absent stays as it is, and null is refused unless the field's type has it (JSON Merge Patch, RFC 7396).
An answer's model is a plain `BaseModel` without defaults, so that clients see what is always there; a resource's is an
`Out`.
Moments are `domain.moment.Moment`; ids in paths and bodies are the types of `api.ids`.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ingestd.domain.column import is_one_line
from ingestd.domain.segment import segment_name_problem

STRICT: Final = ConfigDict(extra="forbid")

_DAY: Final = 24 * 60 * 60


class In(BaseModel):
    """A request's model: an unknown field is refused (T56)."""

    model_config = STRICT


class Out(BaseModel):
    """A resource as it is answered, with its typed id."""

    id: str


def _printable(text: str) -> str:
    if not is_one_line(text) or text != text.strip():
        raise ValueError("holds control characters, or begins or ends with a space")
    return text


Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^\S(.*\S)?$"), AfterValidator(_printable)]
"""What people call something: one line, at most 120 characters."""


def _stem(name: str) -> str:
    if problem := segment_name_problem(name):
        raise ValueError(problem)
    return name


Stem = Annotated[Name, AfterValidator(_stem)]
"""A name with which the names of its files begin (D57)."""


Address = Annotated[
    str, Field(min_length=3, max_length=320, examples=["data@example.org"], json_schema_extra={"format": "email"})
]
"""What is to be an e-mail address; `domain.recipient.normal_address` says whether it is one."""


class RotateIn(In):
    """How long the old one stays in force beside the new one."""

    grace_seconds: Annotated[int, Field(ge=0, le=7 * _DAY)] = _DAY


A_DAY: Final = RotateIn()
"""What it is where the body is unsaid."""
