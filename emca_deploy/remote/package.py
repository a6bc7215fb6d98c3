"""The agent: this package, without what only a desk needs, as one file that Python runs."""

import io
import zipfile
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

__all__ = ["LEFT_OUT", "agent_bytes"]

LEFT_OUT = (
    "calibration",
    "canonical",
    "commands",
    "exporting",
    "api",
    "reporting",
    "cli.py",
    "__main__.py",
    "data/bundled",
    "backends/*/recipe.py",
)
"""What another machine has no use for. Nothing that is sent imports any of it: a contract of import-linter holds that."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same package gives the same bytes, which are then there already."""


@lru_cache
def agent_bytes() -> bytes:
    """Return the agent, a zip archive to be put on sys.path."""
    root = Path(__file__).parents[1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if not any(fnmatch(name, part) or name.startswith(f"{part}/") for part in LEFT_OUT):
                entry = zipfile.ZipInfo(f"emca_deploy/{name}", _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return out.getvalue()
