"""Run emca-deploy: as `python -m emca_deploy`, and as the script `emca-deploy`."""

import os
import sys

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C while the rest of it is still being imported is one line, as it is later."""
    try:
        from emca_deploy.cli import main as command_line
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was begun\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    command_line()


if __name__ == "__main__":
    main()
