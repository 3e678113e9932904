"""Bulk loading: a part's changes go to PostgreSQL by COPY, in the caller's transaction."""
