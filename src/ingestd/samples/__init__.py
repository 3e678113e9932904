"""The specification's samples, which the demo and the tests push."""
