"""Opens pages in a real headless Chromium at a given width, and runs a script in them."""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=20000",
)  # fmt: skip
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre id="result"></pre>
<script>
document.getElementById("page").addEventListener("load", async (event) => {{
  const frame = event.target, doc = frame.contentDocument, view = frame.contentWindow;
  let result;
  try {{ result = await (async () => {{ {script} }})(); }} catch (error) {{ result = {{ error: String(error) }}; }}
  document.getElementById("result").textContent = JSON.stringify(result);
}});
</script>"""


def run_in_page(page: Path, folder: Path, width_px: int, script: str) -> tuple[Any, list[str]]:
    """Return what a script returns, and the messages on the console.

    Args:
        page: HTML file.
        folder: folder for the browser's files.
        width_px: width of the page.
        script: body of an async function that sees `doc` and `view`, the document and window of the page.
    """
    assert CHROMIUM is not None
    outer = folder / "frame.html"
    text = page.read_text(encoding="utf-8")
    outer.write_text(_FRAME.format(width=width_px, page=escape(text), script=script), encoding="utf-8")
    command = [
        CHROMIUM,
        *_FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,1000",
        "--dump-dom",
        outer.as_uri(),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    messages = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(unescape(found[1])), messages
