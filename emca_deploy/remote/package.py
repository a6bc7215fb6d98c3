"""The agent: this package, without what only a desk needs, as one file that Python runs."""

import io
import zipfile
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from emca_deploy.remote.protocol import ZIP_DATE

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
MAIN = "targets/agent/__main__.py"
"""What runs first."""


@lru_cache
def agent_bytes() -> bytes:
    """Return the agent, a zip archive that Python runs."""
    root = Path(__file__).parents[1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if not any(fnmatch(name, part) or name.startswith(f"{part}/") for part in LEFT_OUT):
                _add(archive, f"emca_deploy/{name}", path)
        _add(archive, "__main__.py", root / MAIN)
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, ZIP_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, path.read_bytes())
