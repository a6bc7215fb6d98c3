"""Problems of a remote machine: each gives two lines and the right exit code, and leaves no file on it."""

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from emca_deploy.cli import run
from emca_deploy.remote.address import parse_address
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.probe import look
from emca_deploy.requests import ProfileRequest
from emca_deploy.targets.registry import parse


def done(request, progress=None):
    return parse(request.target).run(request, progress)


QUICK = ("--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--no-telemetry", "--json")


@pytest.fixture
def refused(capfd, model):
    """Return a function that profiles on a target and returns the exit code and the two lines."""

    def ask(target, *more):
        code = run(["profile", str(model), "--target", target, *QUICK, *more])
        out, err = capfd.readouterr()
        lines = err.strip().splitlines()
        assert out == ""
        assert len(lines) == 2, err
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("  try: ")
        return code, *lines

    return ask


@pytest.mark.parametrize(
    "text", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://h:0", "ssh://h:99999", "ssh://h/$(x)", "ssh://u;v@h"]
)
def test_what_names_no_machine(refused, text):
    code, problem, _ = refused(text)
    assert code == 2
    assert text in problem


def test_a_power_mode_of_what_is_no_jetson(refused, far):
    code, problem, remedy = refused(far.target, "--power-mode", "15W")
    assert code == 2
    assert "--power-mode 15W" in problem
    assert remedy
    far.wait_until_nothing_runs()


def test_nobody_is_there(refused, far):
    with socket.socket() as held:  # bound but not listening
        held.bind(("127.0.0.1", 0))
        target = f"ssh://127.0.0.1:{held.getsockname()[1]}"
        code, problem, _ = refused(target)
    assert code == 3
    assert target in problem


def test_no_such_host(refused, far):
    code, problem, _ = refused("ssh://no-such-host.invalid")
    assert code in (2, 3)
    assert "no-such-host.invalid" in problem


def test_a_service_that_is_no_sshd(refused, far):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(20)

        def hang_up():
            peer, _ = other.accept()
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        code, problem, _ = refused(f"ssh://127.0.0.1:{other.getsockname()[1]}")
        thread.join()
    assert code == 3
    assert "closes the connection" in problem


def test_an_unknown_host_key(refused, far):
    (far.folder / "known").write_text("")
    code, problem, remedy = refused(far.target)
    assert code == 3
    assert far.target in problem
    assert (far.folder / "known").read_text() == ""
    # The remedy can be pasted: it has the host's real name and port, and the file that this configuration names.
    subprocess.run(remedy[remedy.index("ssh-keyscan") :], shell=True, check=True, capture_output=True)
    with Connection(parse_address(far.target)) as connection:
        assert look(connection).python == os.environ["EMCA_DEPLOY_REMOTE_PYTHON"]


def test_a_changed_host_key(refused, far):
    other = (far.folder / "user.pub").read_text().split()[:2]
    (far.folder / "known").write_text(f"[127.0.0.1]:{far.port} {' '.join(other)}\n")
    code, problem, remedy = refused(far.target)
    assert code == 3
    assert far.target in problem
    assert "ssh-keygen -R" in remedy


def test_a_wrong_key(refused, far):
    (far.folder / "authorized").write_text("")
    code, problem, remedy = refused(far.target)
    assert code == 3
    assert far.target in problem
    assert f"ssh -F {far.folder}/ssh_config -p {far.port} " in remedy


def test_a_configuration_that_is_not_there(refused, far, monkeypatch):
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(far.folder / "none"))
    code, problem, _ = refused(far.target)
    assert code == 2
    assert "no such file" in problem


@pytest.fixture
def only(sshds, monkeypatch, tmp_path):
    """Return a function that starts a machine whose PATH contains only coreutils and these scripts."""

    def make(**scripts: str):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("sh", *("cat", "cut", "ls", "mkdir", "mv", "rm", "sha256sum", "tail", "touch", "tr", "wc")):
            (folder / name).symlink_to(shutil.which(name))
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        found = sshds(environment={"PATH": str(folder)})
        monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
        monkeypatch.delenv("EMCA_DEPLOY_REMOTE_PYTHON", raising=False)
        return found

    return make


def test_no_python_and_no_trtexec(refused, only):
    code, problem, remedy = refused(only().target)
    assert code == 3
    assert "Python" in problem
    assert "trtexec" in problem
    assert "EMCA_DEPLOY_REMOTE_PYTHON" in remedy


def test_no_python_but_trtexec_is_not_enough_to_build(only, model, tmp_path, capfd):
    found = only(trtexec="echo")
    code = run(["build", str(model), "--backend", "onnxruntime", "-o", str(tmp_path / "x"), "--target", found.target])
    err = capfd.readouterr().err
    assert code == 3
    assert found.target in err
    assert "Python" in err


def test_no_python_to_validate_with(only, model, tmp_path, capfd):
    import numpy as np

    np.savez(tmp_path / "images.npz", images=np.zeros((2, 20, 20, 3), np.uint8), labels=np.zeros(2, np.int64))
    assert run(["validate", str(model), "--data", str(tmp_path / "images.npz"), "--target", only().target]) == 3
    assert "has no Python" in capfd.readouterr().err


def test_a_python_that_does_not_run(refused, only):
    code, problem, _ = refused(only(python3="echo 'libz.so.1: cannot open shared object file' >&2; exit 127").target)
    assert code == 3
    assert "libz.so.1: cannot open shared object file" in problem


OLD = next((path for path in Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python3")), None)


@pytest.mark.skipif(OLD is None, reason="needs a Python older than 3.10")
def test_python_too_old(refused, only):
    code, problem, _ = refused(only(python3=f'exec {OLD} "$@"').target)
    assert code == 3
    assert "its Python is 3." in problem
    assert "3.10 is needed" in problem


def without(python: str, *modules: str) -> str:
    """Return a script that runs Python without some packages."""
    hidden = ",".join(repr(name) for name in modules)
    code = (
        "import sys, runpy, importlib.machinery as m; "
        f"h = ({hidden},); f = m.PathFinder.find_spec; "
        "m.PathFinder.find_spec = classmethod(lambda c, n, *a: None if n.split('.')[0] in h else f(n, *a)); "
        "p = sys.argv[1]; sys.argv[:2] = ['-c']; exec(p)"
    )
    return f'shift; exec {python} -c "{code}" "$@"'


def test_no_numpy_there(refused, only, remote_python):
    code, problem, remedy = refused(only(python3=without(remote_python, "numpy")).target)
    assert code == 3
    assert "has no numpy" in problem
    assert "pip install numpy" in remedy


def test_no_runtime_there(refused, only, remote_python):
    found = only(python3=without(remote_python, "openvino"))
    code, problem, remedy = refused(found.target, "--backend", "openvino")
    assert code == 3
    assert "openvino" in problem
    assert "pip install openvino" in remedy
    assert not found.cache.exists()  # detected before anything was sent


def test_no_runtime_to_validate_with(only, remote_python, model, tmp_path, capfd):
    import numpy as np

    found = only(python3=without(remote_python, "openvino"))
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 20, 20, 3), np.uint8), labels=np.zeros(2, np.int64))
    asked = ["--backend", "openvino", "--data", str(tmp_path / "images.npz"), "--target", found.target]
    assert run(["validate", str(model), *asked]) == 3
    assert "pip install openvino" in capfd.readouterr().err
    assert not found.cache.exists()


def test_no_decoder_there_for_pictures(only, remote_python, model, tmp_path, capfd):
    from PIL import Image

    found = only(python3=without(remote_python, "PIL"))
    (tmp_path / "images/0").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "images/0/a.png")
    asked = ["--backend", "onnxruntime", "--data", str(tmp_path / "images"), "--target", found.target]
    assert run(["validate", str(model), *asked]) == 3
    assert "pip install Pillow" in capfd.readouterr().err
    assert not found.cache.exists()


@pytest.mark.parametrize("command", ["profile", "validate"])
def test_no_torch_there_for_a_checkpoint(only, remote_python, tmp_path, capfd, command):
    import numpy as np

    found = only(python3=without(remote_python, "torch"))
    (tmp_path / "weights.pth").write_bytes(b"read over there")
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 20, 20, 3), np.uint8), labels=np.zeros(2, np.int64))
    data = ["--data", str(tmp_path / "images.npz"), "--image-size", "32"] if command == "validate" else []
    assert run([command, str(tmp_path / "weights.pth"), *data, "--target", found.target]) == 3
    problem, remedy = capfd.readouterr().err.splitlines()[-2:]
    assert "torch" in problem
    assert "pip install torch" in remedy
    assert not found.cache.exists()


def test_a_checkpoint_where_there_is_trtexec_only(only, tmp_path, capfd):
    (tmp_path / "weights.pth").write_bytes(b"read over there")
    assert run(["profile", str(tmp_path / "weights.pth"), "--target", only(trtexec="echo [TensorRT v8502]").target]) == 3
    assert "has no Python" in capfd.readouterr().err


def test_a_named_python_that_is_not_there(refused, far, monkeypatch):
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", "/nowhere/python3; touch x")
    code, problem, _ = refused(far.target)
    assert code == 3
    assert "EMCA_DEPLOY_REMOTE_PYTHON" in problem


def test_an_artifact_that_is_not_here(far, capfd):
    assert run(["profile", "nowhere.onnx", "--target", far.target]) == 2
    assert "nowhere.onnx: no such file" in capfd.readouterr().err


def test_errors_from_there_name_the_files_of_here(far, tmp_path, capfd):
    from emca_deploy.artifacts import Manifest, write_manifest

    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x3a\x04abcd")
    write_manifest(path, Manifest("onnx", "", "fp32"))
    code = run(["profile", str(path), "--target", far.target, "--duration", "0.2"])
    err = capfd.readouterr().err
    assert code == 2, err
    assert str(path) in err
    assert "@0" not in err


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("cannot mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_there(refused, sshds, tiny_disk, remote_python, monkeypatch):
    found = sshds(environment={"XDG_CACHE_HOME": str(tiny_disk)})
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", remote_python)
    code, problem, _ = refused(found.target)
    assert code == 3
    assert "disk is full" in problem
    assert not list(tiny_disk.rglob("*.part"))


NOISE = """#!/bin/sh
printf 'Welcome to the board!\\n{"is": "result"}\\nno line break here'
echo 'a warning of some shell' >&2
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


def test_a_shell_that_talks_and_a_clock_that_is_wrong(sshds, model, remote_python, monkeypatch, tmp_path):
    shift = "import sys, time; t = time.time; time.time = lambda: t() + 3600; p = sys.argv[1]; sys.argv[:2] = ['-c']; exec(p)"
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exec {remote_python} "$@"\nshift\nexec {remote_python} -c "{shift}" "$@"\n')
    python.chmod(0o755)
    script = tmp_path / "noise"
    script.write_text(NOISE)
    script.chmod(0o755)
    banner = tmp_path / "banner"
    banner.write_text("All your base\n")
    found = sshds(f"ForceCommand {script}", f"Banner {banner}")
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", str(python))
    report, _ = done(
        ProfileRequest((str(model),), target=found.target, duration_s=0.2, max_duration_s=0.2, warmup_s=0.1, telemetry=False)
    )
    assert report.complete
    found.wait_until_nothing_runs()
    ssh = report.environment["ssh"]
    assert 3590 < ssh["clock_offset_s"] < 3610
    assert any("clock is" in note for note in ssh["notes"])
