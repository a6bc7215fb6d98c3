"""The agent as one file that Python runs: this package without what a remote machine does not need."""

import io
import zipfile
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from emca_deploy.remote.protocol import ZIP_DATE

__all__ = ["LEFT_OUT", "agent_bytes"]

LEFT_OUT = (
    "bundles",
    "calibration",
    "canonical",
    "commands",
    "exporting",
    "fleet",
    "history_store",
    "api",
    "reporting",
    "requirements",
    "cli.py",
    "__main__.py",
    "data/bundled",
    "backends/*/recipe.py",
)
"""Parts that are not sent. A contract of import-linter ensures that nothing that is sent imports them."""
MAIN = "targets/agent/main.py"


@lru_cache
def agent_bytes() -> bytes:
    """Return the agent's zip archive."""
    root = Path(__file__).parents[1]
    out = io.BytesIO()
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.py"))]
    sent = [name for name in names if not any(fnmatch(name, part) or name.startswith(f"{part}/") for part in LEFT_OUT)]
    with zipfile.ZipFile(out, "w") as archive:
        for inside, name in (*((f"emca_deploy/{name}", name) for name in sent), ("__main__.py", MAIN)):
            archive.writestr(zipfile.ZipInfo(inside, ZIP_DATE), (root / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()
