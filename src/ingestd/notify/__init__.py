"""Floor 3: what has happened goes out to those who want to know."""
