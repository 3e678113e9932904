"""The command `ingestd`, also as `python -m ingestd`.

A data-plane process imports the script that started the service, and so this module.
"""


def main() -> None:
    """Run a command of the command line."""
    from ingestd.cli import main as run  # noqa: PLC0415 -- for this process alone: the data plane has no use for it

    run()


if __name__ == "__main__":
    main()
