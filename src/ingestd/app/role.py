"""The roles of the service."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a process of the service does; any number of processes may have a role."""

    API = "api"
    SFTP = "sftp"
    WORKER = "worker"
    CLOCK = "clock"
