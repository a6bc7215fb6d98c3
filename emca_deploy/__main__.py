"""The entry point of `python -m emca_deploy` and of the script `emca-deploy`."""

import gc
import os
import sys

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C during its import prints one line instead of a traceback."""
    try:
        from emca_deploy.cli import main as command_line
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was started\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    try:
        command_line()
    finally:
        gc.freeze()  # at exit, Python would collect all objects, which takes 0.6 s for PyTorch's


if __name__ == "__main__":
    main()
