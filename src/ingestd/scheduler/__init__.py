"""The door of time: what is due becomes a run."""
