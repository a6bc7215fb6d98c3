"""Write the manual page that the package ships, from the commands' help: `python scripts/generate_manual.py`."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.cmd.build import main as build

__all__ = ["PAGE", "manual"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "man" / "emca-deploy.1"
DATE = "2026-11-30"
"""Date in the page's foot; a page that changed with the day of its generation could not be compared."""

_SETTINGS = f"""
import sys
sys.path.insert(0, {str(ROOT / "docs")!r})
from conf import *
from conf import keep_backslashes, leave_out_missing_defaults
extensions = ["sphinx_click"]
today = {DATE!r}
man_pages = [("index", "emca-deploy", "take trained networks with channel attention to measured INT8 deployments", [], 1)]
def setup(app):
    app.connect("sphinx-click-process-options", leave_out_missing_defaults)
    app.connect("sphinx-click-process-description", keep_backslashes)
"""
_TEXT = """
Description
===========

.. click:: emca_deploy.cli:cli
   :prog: emca-deploy
   :nested: full
"""


def manual() -> str:
    """Return the manual page of all commands, as roff."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "conf.py").write_text(_SETTINGS, encoding="utf-8")
        (place / "index.rst").write_text(_TEXT, encoding="utf-8")
        if build(["-q", "-W", "-b", "man", folder, f"{folder}/out"]):
            raise SystemExit("sphinx-build failed")
        page = (place / "out" / PAGE.name).read_text(encoding="utf-8")
    page = page.replace(".SH EMCA-DEPLOY\n", ".SH DESCRIPTION\n", 1).replace(r"\fBRequired\fP ", "Required. ")
    page = re.sub(r"[ \t]+$", "", page, flags=re.MULTILINE)
    page = re.sub(r"^(\.S[SH] .*\n)\.sp\n", r"\1", page, flags=re.MULTILINE)  # mandoc warns of a second blank line
    return re.sub(r"^(\.sp\n)+", ".sp\n", page, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(manual(), encoding="utf-8")
