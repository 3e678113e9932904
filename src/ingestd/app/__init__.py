"""The composition root: Settings become the running service."""

from ingestd.app.ground import Base, base, database_version, migrate
from ingestd.app.service import App, Role, running

__all__ = ["App", "Base", "Role", "base", "database_version", "migrate", "running"]
