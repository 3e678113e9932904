"""Health and version: open to everyone, and silent about everything else."""

from __future__ import annotations

import asyncio

from fastapi import Response
from pydantic import BaseModel

from ingestd import __version__
from ingestd.api.catalogue import CATALOGUE
from ingestd.api.context import Service
from ingestd.api.problems import urn
from ingestd.api.routes import Router

router = Router(tags=["System"])


class Health(BaseModel):
    """Whether the process lives."""

    status: str


class Readiness(BaseModel):
    """Whether each thing the service depends on answers."""

    status: str
    checks: dict[str, str]


class Version(BaseModel):
    """Which release this is."""

    version: str


class ProblemKind(BaseModel):
    """One kind of problem: why it happens and what to do."""

    type: str
    code: str
    status: int
    title: str
    cause: str
    remedy: str


class ProblemKinds(BaseModel):
    """All kinds of problems."""

    data: list[ProblemKind]


@router.get("/livez", operation_id="livez", summary="Whether the process lives")
async def livez() -> Health:
    """Answer while the process lives."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether the service can work",
    responses={503: {"model": Readiness, "description": "Something does not answer."}},
)
async def readyz(service: Service, response: Response) -> Readiness:
    """Check all that the process depends on, and its own parts, each by name; 503 where one does not answer."""
    answers = await asyncio.gather(*(check() for check in service.checks.values()))
    checks = {name: "ok" if answer else "unavailable" for name, answer in zip(service.checks, answers, strict=True)}
    response.status_code = 200 if all(answers) else 503
    return Readiness(status="ok" if all(answers) else "unavailable", checks=checks)


@router.get("/version", operation_id="version", summary="Which release this is")
async def version() -> Version:
    """The running release."""
    return Version(version=__version__)


@router.get("/problems", operation_id="problems_list", summary="List all kinds of problems")
async def list_kinds() -> ProblemKinds:
    """Every code that a problem document can have, with its cause and its remedy."""
    kinds = [
        ProblemKind(
            type=urn(code), code=code, status=kind.status, title=kind.title, cause=kind.cause, remedy=kind.remedy
        )
        for code, kind in CATALOGUE.items()
    ]
    return ProblemKinds(data=kinds)
