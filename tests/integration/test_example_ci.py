"""The GitHub Action and the GitLab job of the examples run, as far as a shell can."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
QUICK = "--duration 1 --max-duration 1 --warmup 0 --processes 1 --threads 1 --no-telemetry"
VARIABLES = {"MODEL": "fake:latency_ms=2", "BASELINE": "", "PROFILE_OPTIONS": QUICK}


def steps(name):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a script as the CI does, with emca-deploy on the path."""
    program = tmp_path / "bin" / "emca-deploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m emca_deploy "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    summary = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}

    def call(script, **variables):
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(EXAMPLES.parents[1]), **summary, **VARIABLES, **variables}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300)

    return call


@pytest.mark.parametrize(("require", "code", "level"), [("throughput>=1images/s", 0, "notice"), ("p50<=1ms", 4, "error")])
def test_the_github_action(shell, tmp_path, require, code, level):
    action = steps("action.yml")
    (step,) = action["runs"]["steps"]
    assert set(step["env"]) == {*VARIABLES, "REQUIRE"}
    assert {name.replace("_", "-").lower() for name in step["env"]} == set(action["inputs"])
    done = shell(step["run"], REQUIRE=require)
    assert done.returncode == code, done.stderr
    assert f"::{level} title=" in done.stderr
    assert require.replace("<", "&lt;").replace(">", "&gt;") in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / "gate.xml").exists()


@pytest.mark.slow  # measures candidate and baseline together
def test_the_gitlab_job(shell, tmp_path):
    job = steps("gitlab-ci.yml")["gate"]
    assert set(job["variables"]) == {*VARIABLES, "REQUIRE"}
    done = shell("\n".join(job["script"]), REQUIRE="slowdown<=400%", BASELINE="fake:latency_ms=2,seed=1")
    assert done.returncode == 0, done.stderr
    for name in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert (tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / "result.json").read_text())["complete"]
