"""Sent as text to a remote machine, where it reports Python and packages. Runs on Python 3.6, and imports only its library."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["OLDEST", "main"]

OLDEST = (3, 10)
"""The oldest Python that runs the agent."""


def version(distributions: Any) -> Any:
    """Return the version of the first of some distributions that is installed, or None."""
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        return None
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def main() -> int:
    """Print one message; return 0 only if this Python runs the agent."""
    from importlib.util import find_spec

    mark, name, root, packages = sys.argv[1:]
    sys.path[:] = [folder for folder in sys.path if folder]  # without the current folder
    have = {module: version(names) for module, names in json.loads(packages).items() if find_spec(module) is not None}
    folder = Path(root)
    while not folder.is_dir() and folder.parent != folder:
        folder = folder.parent
    disk = os.statvfs(str(folder))
    message = {
        "python": name if "/" in name else sys.executable,  # a wrapper script may prepare the environment
        "version": ".".join(map(str, sys.version_info[:3])),
        "have": have,
        "machine": os.uname().machine,
        "system": os.uname().sysname,
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "clock": time.time(),
    }
    # The line break ends an unfinished line of a banner.
    sys.stdout.write("\n" + mark + json.dumps(message) + "\n")
    return 0 if sys.version_info[:2] >= OLDEST and "numpy" in have else 3


if __name__ == "__main__":
    sys.exit(main())
