"""How many examples the generated tests try: few in `make test`, many in `make nightly`, fewest on a second Python."""

import os

FACTOR = float(os.environ.get("TEST_FACTOR", "1"))


def examples(usual: int) -> int:
    """The number of examples where `usual` are tried as a rule."""
    return max(1, round(usual * FACTOR))
