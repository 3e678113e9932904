"""`python -m benchmarks`: measure the service on this machine."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    filters,
    hostile,
    latency,
    listing,
    lists,
    loads,
    merges,
    scaling,
    scan,
    segments,
    small,
    upload,
    webhooks,
)
from benchmarks.machine import Measured
from benchmarks.plot import plot

app = typer.Typer(help="Measure the service on this machine.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(highlight=False)

Mb = Annotated[float, typer.Option(help="Size of the generated file in million bytes.")]
Runs = Annotated[int, typer.Option(min=1, help="How often to measure; each time on a new service.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Where to write all figures, as a JSON list; a plot of them (SVG) comes beside it."),
]
Folder = Annotated[Path | None, typer.Option(help="Where to keep files and the database meanwhile.")]

LOAD: Final = (
    "mb", "seconds", "mb_per_s", "rows_per_s", "raw_copy_seconds", "ratio_raw_copy",
    "peak_pss_mb", "wal_mb", "rows_rejected", "truth_rejected", "rejected_as_truth",
)  # fmt: skip
SCAN: Final = ("mb", "seconds", "cpu_seconds", "raw_copy_seconds", "times_raw_copy", "scan_seconds", "csv_seconds",
               "times_csv", "peak_mb", "rows_rejected", "truth_rejected", "rejected_as_truth")  # fmt: skip
LATENCY: Final = ("mb", "rate", "seconds", "requests", "api_p50_ms", "api_p99_ms", "api_p50_idle_ms", "api_p99_idle_ms",
                  "api_p50_upload_ms", "api_p99_upload_ms")  # fmt: skip
SEGMENTS: Final = (
    "mb", "seconds", "mb_per_s", "rows_per_s", "raw_copy_seconds", "times_raw_copy", "peak_pss_mb", "rows_rejected",
    "truth_rejected", "rejected_as_truth", "members_as_truth",
)  # fmt: skip
M = TypeVar("M", bound=Measured)

LISTS: Final = ("ingestions", "profiles", "fill_seconds", "seconds", "requests", "p50_ms", "p99_ms", "slowest",
                "slowest_p99_ms", "rows_read_without_index")  # fmt: skip
WEBHOOKS: Final = ("deliveries", "seconds", "deliveries_per_s", "bare_per_s", "p50_ms", "p99_ms", "repeats",
                   "unexplained_repeats", "lost")  # fmt: skip
HOSTILE: Final = ("mb", "seconds", "status", "error", "rows_read", "rows_accepted", "rows_rejected", "peak_pss_mb",
                  "requests", "api_p50_ms", "api_p99_ms")  # fmt: skip
UPLOAD: Final = ("mb", "seconds", "mb_per_s", "rows_per_s", "rows_accepted", "rows_rejected", "truth_rejected")
FILTER: Final = ("profiles", "fill_seconds", "seconds", "members", "members_as_truth")
MERGES: Final = ("people", "seconds", "rows_accepted", "merged")
LISTING: Final = ("files", "seconds", "right")
SMALL: Final = ("seconds", "rows_accepted", "rows_rejected", "truth_rejected")


@app.command("profiles")
def measure_profiles(mb: Mb = 200, runs: Runs = 1, out: Json = None, folder: Folder = None) -> None:
    """Load a file of profiles into an empty account, the same file again, then other values of all people."""
    _judge_loads(loads.measure("profiles", mb=mb, runs=runs, parent=folder), out)


@app.command("scaling")
def measure_scaling(
    mb: Annotated[list[float] | None, typer.Option(help="Size of a file in million bytes; more than once.")] = None,
    processes: Annotated[list[int] | None, typer.Option(min=1, help="Data-plane processes; more than once.")] = None,
    people: Annotated[list[int] | None, typer.Option(min=1, help="People stored before; more than once.")] = None,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Load first files of profiles: of several sizes; the first also with other processes, and beside other people.

    Without options: of 100 and 1,000 MB, the first also by one process, and beside a million people.
    """
    if not (mb or processes or people):
        processes, people = [1], [1_000_000]
    wanted = scaling.cases(mb=mb or [100, 1000], processes=processes or [], people=people or [])
    _judge_loads(scaling.measure(wanted, parent=folder), out)


@app.command("events")
def measure_events(mb: Mb = 200, runs: Runs = 1, out: Json = None, folder: Folder = None) -> None:
    """Load a file of events into an empty account, then the same file again, which is as many events more."""
    _judge_loads(loads.measure("events", mb=mb, runs=runs, parent=folder), out)


def _judge_loads(measuring: Iterable[loads.Load], out: Path | None) -> None:
    measured = shown(measuring, LOAD)
    write(measured, out)
    if not all(load.rejected_as_truth for load in measured):
        raise SystemExit("What was rejected is not what is wrong with the file.")


@app.command("scan")
def measure_scan(
    mb: Mb = 200,
    kind: Annotated[str, typer.Option(help="What the file is like.")] = "first",
    runs: Runs = 3,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Scan and check a file of profiles in one process: against Python's csv and a raw COPY."""
    kinds = {each: each for each in scan.KINDS}
    if kind not in kinds:
        raise typer.BadParameter(f"{kind!r} is none of: {', '.join(kinds)}.", param_hint="--kind")
    measured = shown(scan.measure(kind=kinds[kind], mb=mb, runs=runs, parent=folder), SCAN)
    write(measured, out)
    if not all(each.rejected_as_truth for each in measured):
        raise SystemExit("What was rejected is not what is wrong with the file.")


@app.command("segments")
def measure_segments(mb: Mb = 200, runs: Runs = 1, out: Json = None, folder: Folder = None) -> None:
    """Refresh an SCD and a Non-SCD segment with a first file, then with one that changes 7 % of the members."""
    measured = shown(segments.measure(mb=mb, runs=runs, parent=folder), SEGMENTS)
    write(measured, out)
    if not all(each.rejected_as_truth and each.members_as_truth for each in measured):
        raise SystemExit("The rejected rows or the members are not those of the file.")


@app.command("upload")
def measure_upload(mb: Mb = 40, runs: Runs = 1, out: Json = None, folder: Folder = None) -> None:
    """Upload a file for a data source into an empty account, then one that replaces it with other values."""
    measured = shown(upload.measure(mb=mb, runs=runs, parent=folder), UPLOAD)
    write(measured, out)
    if any(each.rows_rejected != each.truth_rejected for each in measured):
        raise SystemExit("The rejected rows are not those of the file.")


@app.command("filter")
def measure_filter(
    profiles: Annotated[int, typer.Option(min=1, help="How many people the account has.")] = 1_000_000,
    runs: Runs = 1,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Find the members of a filter segment when it is activated, and again when a file brings its attributes."""
    measured = shown(filters.measure(profiles=profiles, runs=runs, parent=folder), FILTER)
    write(measured, out)
    if not all(each.members_as_truth for each in measured):
        raise SystemExit("The members are not those who fit the condition.")


@app.command("latency")
def measure_latency(
    mb: Mb = 200,
    runs: Runs = 1,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = latency.RATE,
    idle_seconds: Annotated[float, typer.Option(help="How long to ask the idle service.")] = 10,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Ask the API while a file of profiles is loaded, and while nothing is."""
    measured = latency.measure(mb=mb, rate=rate, idle_seconds=idle_seconds, runs=runs, parent=folder)
    write(shown(measured, LATENCY), out)


@app.command("hostile")
def measure_hostile(
    mb: Mb = 200,
    kind: Annotated[list[str] | None, typer.Option(help="What the file is made of; more than once for more.")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = latency.RATE,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Push files made to hurt, each to a new service, and ask the API meanwhile."""
    kinds = kind or list(hostile.USUAL)
    if unknown := [each for each in kinds if each not in hostile.KINDS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of: {', '.join(hostile.KINDS)}.", param_hint="--kind")
    write(shown(hostile.measure(kinds=kinds, mb=mb, rate=rate, parent=folder), HOSTILE), out)


@app.command("small")
def measure_small(
    runs: Annotated[int, typer.Option(min=1, help="How many files, one after the other.")] = 10,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Push files of 100 rows to an idle service."""
    write(shown(small.measure(runs=runs, parent=folder), SMALL), out)


@app.command("merges")
def measure_merges(
    people: Annotated[int, typer.Option(min=1, help="How many are tied to as many others.")] = 100_000,
    runs: Runs = 1,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Tie people to others who are stored, in an account that PostgreSQL does not know yet."""
    measured = shown(merges.measure(people=people, runs=runs, parent=folder), MERGES)
    write(measured, out)
    if any(each.merged != (people if each.variant == "ties" else 0) for each in measured):
        raise SystemExit("Others were merged than the file ties.")


@app.command("lists")
def measure_lists(
    ingestions: Annotated[int, typer.Option(min=1, help="How many the account has.")] = 1_000_000,
    profiles: Annotated[int, typer.Option(min=1, help="How many people it has.")] = 5_000_000,
    times: Annotated[int, typer.Option(min=1, help="How often to ask each question.")] = 100,
    deep: Annotated[int, typer.Option(min=1, help="How many pages to turn in each list.")] = 300,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Ask for every list, in every order and with every filter, of an account with a long past."""
    measured = lists.measure(ingestions=ingestions, profiles=profiles, times=times, deep=deep, parent=folder)
    [found] = shown(measured, LISTS)
    for question, (half, most) in found.questions.items():
        console.print(f"{most:>8} {half:>8}  {question}", soft_wrap=True)
    write([found], out)


@app.command("webhooks")
def measure_webhooks(
    deliveries: Annotated[int, typer.Option(min=webhooks.ENDPOINTS, help="How many, to 20 endpoints.")] = 10_000,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Tell 20 endpoints, sound ones first, then with one that never answers and one that takes five seconds."""
    measured = shown(webhooks.measure(deliveries=deliveries, parent=folder), WEBHOOKS)
    write(measured, out)
    if any(telling.lost or telling.unexplained_repeats for telling in measured):
        raise SystemExit("Events were lost, or came again without a reason.")


@app.command("listing")
def measure_listing(
    files: Annotated[int, typer.Option(min=1, max=10_000, help="In the one folder.")] = 10_000,
    runs: Annotated[int, typer.Option(min=1, help="How often to ask over each protocol.")] = 3,
    out: Json = None,
    folder: Folder = None,
) -> None:
    """Ask which of many files on an FTP and on an SFTP server would be picked."""
    measured = shown(listing.measure(files=files, runs=runs, parent=folder), LISTING)
    write(measured, out)
    if not all(each.right for each in measured):
        raise SystemExit("The file that would be picked is not the newest.")


def shown(measured: Iterable[M], names: Sequence[str]) -> list[M]:
    """Collect what is measured and print it: a line for each figure, a column for each measurement."""
    found = list(measured)
    console.print(f"{found[0].work} on {found[0].machine.cores} cores of {found[0].machine.processor}", soft_wrap=True)
    table = Table("")
    for each in found:
        table.add_column(f"{each.variant} {each.run}", justify="right")
    figures = [asdict(each) for each in found]
    for name in names:
        table.add_row(name, *(str(each[name]) for each in figures))
    console.print(table)
    return found


def write(measured: Sequence[Measured], out: Path | None) -> None:
    """Write all figures and their plot, if they are wanted."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        plot(measured, out.with_suffix(".svg"))
        out.write_text(json.dumps([asdict(each) for each in measured], indent=2) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the service ends and its folder goes
    app()
