"""Floor 4, a door: the HTTP API. One resource is one file: its schemas, then its routes."""
