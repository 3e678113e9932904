"""Why an ingestion failed, as it is shown: the sentence of the documents, what was wrong, and what to do (D38)."""

from __future__ import annotations

from ingestd.domain.errors import FileRefused, IngestdError, Invalid
from ingestd.domain.ingestion import Counts, ErrorView, ProblemView
from ingestd.domain.rejection import FILE_REASONS, REMEDIES
from ingestd.domain.run import RUN_REASONS


def error_of(refusal: Invalid | FileRefused) -> ErrorView:
    """The error of a manifest or a file that was refused."""
    code = refusal.code if refusal.code in FILE_REASONS else "manifest_incorrect"
    problems = refusal.problems if isinstance(refusal, Invalid) else ()
    shown = [ProblemView(pointer=each.pointer, code=each.code, detail=each.detail) for each in problems]
    return error(code, problems[0].detail if problems else refusal.detail, shown)


def nothing_applied(counts: Counts) -> ErrorView:
    """The error of a file that had rows of which not one could be applied (D30)."""
    return error("nothing_applied", f"All {counts.rejected} rows were rejected; the error file says why.")


def not_fetched(failure: IngestdError) -> ErrorView:
    """The error of a run whose file was not there, or could not be had."""
    made = error if failure.code in FILE_REASONS else run_error
    return made(failure.code, failure.detail)


def run_error(code: str, detail: str) -> ErrorView:
    """The error of a run that got no file, with a code of `run.RUN_REASONS` or any other."""
    message, remedy = RUN_REASONS.get(code, RUN_REASONS["fetch_failed"])
    return ErrorView(code=code, message=message, detail=detail, remedy=remedy, problems=[])


def error(code: str, detail: str, problems: list[ProblemView] | None = None) -> ErrorView:
    """An error with a code of `rejection.FILE_REASONS`."""
    return ErrorView(
        code=code,
        message=FILE_REASONS[code].sentence,
        detail=detail,
        remedy=REMEDIES[code],
        problems=problems or [],
    )
