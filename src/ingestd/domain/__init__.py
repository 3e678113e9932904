"""Floor 1: words and rules. Pure: no input or output, no clock, no async."""
