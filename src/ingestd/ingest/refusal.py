"""Why an ingestion failed, as it is shown: the sentence of the documents, what was wrong, and what to do (D38).

What to do depends on what the file is for: `plan` says it, and where it is not given the file came with a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingestd.domain.errors import FileRefused, IngestdError, Invalid, Problem
from ingestd.domain.ingestion import Counts, ErrorView, ProblemView
from ingestd.domain.plan import Plan, Target
from ingestd.domain.rejection import FILE_REASONS, REMEDIES, REMEDIES_OF_SEGMENT, REMEDIES_OF_SOURCE
from ingestd.domain.run import RUN_REASONS
from ingestd.domain.schedule import OwnerKind


def error_of(refusal: Invalid | FileRefused, plan: Plan | None = None) -> ErrorView:
    """The error of a manifest or a file that was refused."""
    code = refusal.code if refusal.code in FILE_REASONS else "manifest_incorrect"
    if isinstance(refusal, Invalid):
        problems = refusal.problems
    else:  # where a manifest does not fit its file, that is the place
        problems = (Problem("/columns", "columns", refusal.detail),) if code == "manifest_incorrect" else ()
    made = error(code, problems[0].detail if problems else refusal.detail, plan)
    shown = [ProblemView(pointer=each.pointer, code=each.code, detail=each.detail) for each in problems]
    return made.model_copy(update={"problems": shown})


def nothing_applied(counts: Counts, plan: Plan | None = None) -> ErrorView:
    """The error of a file that had rows of which not one could be applied (D30)."""
    return error("nothing_applied", f"All {counts.rejected} rows were rejected; the error file says why.", plan)


def error(code: str, detail: str, plan: Plan | None = None) -> ErrorView:
    """An error with a code of `rejection.FILE_REASONS`."""
    if plan is not None and plan.target is Target.SEGMENT:
        return _file_error(code, detail, REMEDIES_OF_SEGMENT)
    return _file_error(code, detail, REMEDIES_OF_SOURCE if plan is not None and plan.mapped else REMEDIES)


def not_fetched(failure: IngestdError, owner: OwnerKind) -> ErrorView:
    """The error of a run whose file was not there, or could not be had."""
    if failure.code not in FILE_REASONS:
        return run_error(failure.code, failure.detail)
    remedies = REMEDIES_OF_SOURCE if owner is OwnerKind.DATA_SOURCE else REMEDIES_OF_SEGMENT
    return _file_error(failure.code, failure.detail, remedies)


def run_error(code: str, detail: str) -> ErrorView:
    """The error of a run that got no file, with a code of `run.RUN_REASONS` or any other."""
    message, remedy = RUN_REASONS.get(code, RUN_REASONS["fetch_failed"])
    return ErrorView(code=code, message=message, detail=detail, remedy=remedy, problems=[])


def _file_error(code: str, detail: str, remedies: Mapping[str, str]) -> ErrorView:
    return ErrorView(code=code, message=FILE_REASONS[code].sentence, detail=detail, remedy=remedies[code], problems=[])
