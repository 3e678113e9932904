"""Floor 3: the life of one ingestion, from the only way in to its report."""
