"""On what was measured: the machine, the versions, and PostgreSQL's settings."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import psycopg

PACKAGES: Final = ("ingestd", "polars", "pyarrow", "psycopg", "dbos", "asyncssh", "tink", "fastapi", "uvicorn")
SETTINGS: Final = (
    "shared_buffers", "max_wal_size", "wal_buffers", "wal_writer_delay", "checkpoint_timeout", "wal_compression",
    "wal_level", "work_mem", "fsync", "synchronous_commit", "full_page_writes", "autovacuum", "jit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor, how many cores of it may be used, memory, and how busy it was (load average of a minute)."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What every figure carries: what was measured, of a file of how many million bytes, in which run, and on what."""

    work: str
    variant: str
    mb: float
    run: int
    machine: Machine = field(repr=False)
    versions: dict[str, str] = field(repr=False)
    postgres_settings: dict[str, str] = field(repr=False)


def circumstances(url: str) -> dict[str, Any]:
    """The fields of `Measured` that say on what, as things stand now."""
    with psycopg.connect(url) as connection:
        settings: dict[str, str] = dict(
            connection.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)", (list(SETTINGS),)
            ).fetchall()
        )
        postgresql = f"{connection.info.server_version // 10_000}.{connection.info.server_version % 10_000}"
    versions = {"python": platform.python_version(), "postgresql": postgresql}
    versions |= {name: version(name) for name in PACKAGES} | {"commit": _commit()}
    return {"machine": _machine(), "versions": versions, "postgres_settings": settings}


def _commit() -> str:
    """The commit of this tree, with `-dirty` where it was changed; nothing outside a clone."""
    git = shutil.which("git") or "git"
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=platform.platform(),
        load=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()
