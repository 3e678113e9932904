"""Floor 2: one file's way to typed rows. Sync, columnar, free of database and network."""
