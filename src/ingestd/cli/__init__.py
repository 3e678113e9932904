"""The command line: how each command is called is in `commands`, what it does in a module of its own."""

from __future__ import annotations

import sys

from rich.console import Console

from ingestd.cli.commands import app
from ingestd.domain.errors import IngestdError, Invalid


def main() -> None:
    """Run the command; what the service can explain is one line on stderr and exit code 1, never a traceback."""
    try:
        app()
    except IngestdError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"ingestd: {error.detail}", style="red", markup=False)
        if isinstance(error, Invalid):
            for problem in error.problems:
                console.print(f"  {problem.pointer}: {problem.detail}", markup=False)
        sys.exit(1)
