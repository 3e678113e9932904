"""The composition root: Settings become the running service."""
