"""The command line: one command, one file."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from ingestd.cli import accounts, backup, check, demo, doctor, keys, messages, migrate, openapi, push, serve
from ingestd.domain.errors import IngestdError, Invalid

app = typer.Typer(
    name="ingestd",
    help="File ingestion for a customer data platform: SFTP push, scheduled pull and HTTP upload, one pipeline.",
    epilog="Exit codes: 0 done; 1 it could not be done, stderr says why; 2 called wrongly. `check` and `push --follow`"
    " also end with 3 (some rows rejected) and 4 (file refused, or no row good).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(demo.demo)
app.command()(check.check)
app.command()(push.push)
app.command()(doctor.doctor)
app.command()(migrate.migrate)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(openapi.openapi)
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(messages.app, name="messages")


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
