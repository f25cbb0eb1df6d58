"""``python -m hyperdrive``, and the command of that name."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C ends it without a word also while it is being imported."""
    try:
        from hyperdrive.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
