"""The command `ingestd`, also as `python -m ingestd`.

A process that the service spawns imports the script that started the service, and so this module.
"""

import gc


def main() -> None:
    """Run a command of the command line."""
    gc.disable()  # to look for garbage among what is imported, which is none, would be a tenth of the start
    from ingestd.cli import main as run  # noqa: PLC0415 -- for this process alone: the data plane has no use for the API

    gc.enable()
    run()


if __name__ == "__main__":
    main()
