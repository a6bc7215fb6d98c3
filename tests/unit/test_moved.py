"""Old names of modules still work and refer to the same modules."""

import subprocess
import sys

import pytest

from emca_deploy._moved import MOVED

PROGRAM = """
import importlib, sys, warnings
import emca_deploy
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old = importlib.import_module(sys.argv[1])
new = importlib.import_module(sys.argv[2])
assert old is new, (old, new)
assert new.__spec__.name == sys.argv[2], new.__spec__
assert any(issubclass(each.category, DeprecationWarning) for each in caught)
importlib.reload(new)
"""


@pytest.mark.parametrize(
    ("old", "module"),
    [
        ("emca_deploy.models", "layouts"),
        ("emca_deploy.harness.telemetry", "tegrastats"),
        ("emca_deploy.targets.jetson", "modes"),
        ("emca_deploy.targets.trtexec", "log"),
        ("emca_deploy.backends.trt", "inspect"),
    ],
)
def test_an_old_name_means_the_same_module(old, module):
    names = (f"{old}.{module}", f"{MOVED[old]}.{module}")
    found = subprocess.run([sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_every_old_name_is_free():
    from pathlib import Path

    root = Path(__file__).parents[2]
    for old in MOVED:
        place = root.joinpath(*old.split("."))
        assert not place.exists()
        assert not place.with_suffix(".py").exists()


def test_a_name_that_never_was_is_not_found():
    program = "import emca_deploy.models.nothing"  # in its own process, since it replaces the function `emca_deploy.models`
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in found.stderr
