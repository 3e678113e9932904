"""Floor 2: PostgreSQL: a table and the questions asked of it live in one file."""
