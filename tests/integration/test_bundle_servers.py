"""MLflow and its server, installed from a package registry, run the folder of `bundle --layout mlflow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/bundle_servers.py"


@pytest.mark.slow  # installs MLflow
def test_mlflow_and_its_server_give_the_classes_of_validate(tmp_path):
    written = tmp_path / "rows.json"
    command = [sys.executable, SCRIPT, "--images", "20", "--output", written]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert [row["by"] for row in rows].count("mlflow models serve") == 3
    assert {(row["images"], row["same_class"]) for row in rows} == {(20, 20)}
    assert max(row["max_rel"] for row in rows) <= 1e-5
