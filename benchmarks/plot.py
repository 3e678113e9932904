"""The main figures as a plot (SVG) for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.machine import Measured

_LOAD: Final = {"raw COPY": "raw_copy_seconds", "the service": "seconds"}

PLOTTED: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "profiles": ("seconds", _LOAD),
    "events": ("seconds", _LOAD),
    "scaling": ("rows a second", {"": "rows_per_s"}),
    "segments": ("seconds", _LOAD),
    "scan": (
        "seconds",
        {
            "raw COPY": "raw_copy_seconds",
            "scan, check, error file": "seconds",
            "Python's csv": "csv_seconds",
            "scan alone": "scan_seconds",
        },
    ),
    "peers": ("seconds", {"": "seconds"}),
    "upload": ("seconds", {"to completed": "seconds"}),
    "filter": ("seconds", {"to completed": "seconds"}),
    "listing": ("seconds", {"to the answer": "seconds"}),
    "small": ("seconds", {"from CLOSE to webhook": "seconds"}),
    "merges": ("seconds", {"from CLOSE to webhook": "seconds"}),
    "latency": (
        "milliseconds, 99 of 100 answers",
        {"idle": "api_p99_idle_ms", "upload": "api_p99_upload_ms", "load": "api_p99_ms"},
    ),
    "hostile": ("million bytes", {"memory at its peak": "peak_pss_mb"}),
    "lists": ("milliseconds", {"median": "p50_ms", "99 of 100": "p99_ms", "99 of 100, slowest list": "slowest_p99_ms"}),
    "webhooks": ("deliveries a second", {"bare loop": "bare_per_s", "the service": "deliveries_per_s"}),
}
"""For each work the unit, and which figures are shown, by what they are called."""


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Draw the figures of one work: a group of bars for each measurement, a bar for each figure."""
    work, mb = measured[0].work, measured[0].mb
    unit, shown = PLOTTED[work]
    bars = len(measured) * len(shown)
    runs = len({each.run for each in measured}) > 1
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": work, "font.size": 9}):
        figure = Figure(figsize=(7, 1.2 + 0.25 * bars), layout="constrained")
        axes = figure.subplots()
        for place, (name, field) in enumerate(shown.items()):
            rows = [group * (len(shown) + 0.5) + place for group in range(len(measured))]
            drawn = axes.barh(rows, [asdict(each)[field] for each in measured], height=0.9, label=name)
            axes.bar_label(drawn, fmt="{:,.3g}", padding=2)
        axes.set_yticks(
            [group * (len(shown) + 0.5) + (len(shown) - 1) / 2 for group in range(len(measured))],
            [f"{each.variant} {each.run}" if runs else each.variant for each in measured],
        )
        axes.invert_yaxis()  # the first one comes on top
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{work}, {mb:,.0f} MB" if mb >= 1 and len({each.mb for each in measured}) == 1 else work)
        axes.set_xlabel(unit)
        if len(shown) > 1:
            figure.legend(loc="outside lower center", ncols=len(shown), frameon=False)
        figure.savefig(path, metadata={"Date": None})
