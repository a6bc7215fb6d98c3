"""The command line starts fast: help loads no heavy library, works without them, and takes little processor time."""

import os
import subprocess
import sys

import pytest

from emca_deploy.cli import COMMANDS

HEAVY = ("torch", "openvino", "tensorrt", "tensorrt_rtx", "onnxruntime", "onnx", "onnxscript", "numpy", "PIL", "jinja2")
BLOCKED = ("torch", "openvino", "tensorrt", "tensorrt_rtx")
LIMIT_S = 0.4
HELPS = [["--help"], *([name, "--help"] for name in COMMANDS)]

WITHOUT = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        blocked = name.partition(".")[0] in {BLOCKED!r}
        return None if blocked else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
"""Code that a child runs first to hide these libraries."""


def child(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_importing_the_package_loads_nothing_heavy():
    done = child(f"import sys, emca_deploy; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def helped(arguments):
    """Return the processor time of a help in seconds (other load must not fail a test), its stdout, and its stderr with facts."""
    code = (
        "import sys; from emca_deploy.cli import run\n"
        f"code = run({arguments!r})\n"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, out, err


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_loads_nothing_heavy_and_answers_at_once(arguments):
    for _ in range(3):
        seconds, out, err = helped(arguments)
        assert err == "0 []\n"
        assert out.startswith("Usage: emca-deploy")
        if seconds < LIMIT_S:
            return
    pytest.fail(f"{seconds} s")


def test_everything_light_works_without_the_heavy_libraries():
    done = child(
        WITHOUT
        + "import emca_deploy\nfrom emca_deploy.cli import run\n"
        + f"for arguments in {HELPS!r}:\n    assert run(arguments) == 0, arguments\n"
        + "import emca_deploy.backends.registry as registry\n"
        + "usable = [name for name, status in registry.available().items() if status.reason is None]\n"
        + "assert usable == ['onnxruntime', 'fake'], usable\n"
        + "import emca_deploy.api.deploy, emca_deploy.reporting.html, emca_deploy.reporting.terminal\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_without_them_cannot_import_them():
    done = child(WITHOUT + "import torch")
    assert "No module named 'torch'" in done.stderr


def test_a_missing_library_is_said_with_the_extra_that_brings_it(tmp_path):
    done = child(
        WITHOUT
        + "from emca_deploy.cli import run\n"
        + f"sys.exit(run(['export', '--arch', 'emca_eca_resnet18', '--random-init', '-o', {str(tmp_path / 'm.onnx')!r}]))"
    )
    assert done.returncode == 3, done.stderr
    assert "emca-deploy[export]" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
