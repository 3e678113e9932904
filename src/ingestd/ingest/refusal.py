"""Why an ingestion failed, as it is shown: the sentence of the documents, what was wrong, and what to do (D38)."""

from __future__ import annotations

from ingestd.domain.errors import FileRefused, Invalid
from ingestd.domain.ingestion import Counts, ErrorView, ProblemView
from ingestd.domain.rejection import FILE_REASONS, REMEDIES


def error_of(refusal: Invalid | FileRefused) -> ErrorView:
    """The error of a manifest or a file that was refused."""
    code = refusal.code if refusal.code in FILE_REASONS else "manifest_incorrect"
    problems = refusal.problems if isinstance(refusal, Invalid) else ()
    shown = [ProblemView(pointer=each.pointer, code=each.code, detail=each.detail) for each in problems]
    return error(code, problems[0].detail if problems else refusal.detail, shown)


def nothing_applied(counts: Counts) -> ErrorView:
    """The error of a file that had rows of which not one could be applied (D30)."""
    return error("nothing_applied", f"All {counts.rejected} rows were rejected; the error file says why.")


def error(code: str, detail: str, problems: list[ProblemView] | None = None) -> ErrorView:
    """An error with a code of `rejection.FILE_REASONS`."""
    return ErrorView(
        code=code,
        message=FILE_REASONS[code].sentence,
        detail=detail,
        remedy=REMEDIES[code],
        problems=problems or [],
    )
