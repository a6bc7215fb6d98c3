"""The documentation builds as a site without a warning, and contains the command-line reference generated from click."""

import subprocess
import sys

import pytest
from pages import PAGES, ROOT

from emca_deploy.cli import COMMANDS


@pytest.mark.slow  # Sphinx reads every page and imports every command
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        if page.startswith("docs/"):
            assert (tmp_path / page.removeprefix("docs/")).with_suffix(".html").is_file(), page
    reference = (tmp_path / "reference/command-line.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="emca-deploy-{name}"' not in reference] == []
    assert "UNSET" not in reference
