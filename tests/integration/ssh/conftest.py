"""A real sshd on loopback with its own keys, port and configuration, all below the test's folder."""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)


@dataclass
class Far:
    """This machine, reached through ssh."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> str:
        return f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{self.port}"

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "emca-deploy"

    @property
    def pids(self) -> list[int]:
        """Return the processes started through this sshd; an environment variable identifies them."""
        mark = f"EMCA_TEST_FAR={self.port}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def wait_until_nothing_runs(self, seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while self.pids:
            assert time.monotonic() < end, [Path(f"/proc/{pid}/cmdline").read_bytes()[:300] for pid in self.pids]
            time.sleep(0.1)

    def running(self, word: str) -> bool:
        """Return whether this sshd started a process with this word in its command line."""
        for pid in self.pids:
            with suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return True
        return False

    def cut(self, number: int = signal.SIGKILL) -> None:
        """Cut all connections by ending the processes that serve them; SIGSTOP silences them, like an unplugged cable."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(entry.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    os.kill(int(entry.parent.name), number)


def key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Sshds:
    """Factory of sshds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *lines: str, environment: dict[str, str] | None = None, name: str = "far") -> Far:
        folder = self.folder / name
        (folder / "home").mkdir(parents=True)
        for each in ("host", "user"):
            key(folder / each)
        port = free_port()
        values = {
            "EMCA_TEST_FAR": str(port),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HOME": str(folder / "home"),
            **(environment or {}),
        }
        setenv = " ".join(f"{name}={value}" for name, value in values.items())
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        config = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host",
            f"AuthorizedKeysFile {folder}/authorized",
            f"PidFile {folder}/pid",
            f"SetEnv {setenv}",
            *lines,
            *("UsePAM no", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no"),
            *("PermitRootLogin yes", "MaxStartups 100", "LogLevel ERROR"),
        ]
        (folder / "sshd_config").write_text("\n".join(config) + "\n")
        host = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(host)}\n")
        (folder / "ssh_config").write_text(
            f"Host *\n  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile /dev/null\n  IdentityFile {folder}/user\n"
            "  IdentitiesOnly yes\n  IdentityAgent none\n"
        )
        (folder / "ssh_config").chmod(0o600)
        assert SSHD is not None
        log = (folder / "log").open("wb")
        command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self.started.append(process)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        return Far(folder, port, process)

    def stop(self) -> None:
        for process in self.started:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="session")
def privilege_separation() -> None:
    if SSHD is None:
        pytest.skip("sshd is missing: install openssh-server")
    if shutil.which("ssh") is None:
        pytest.skip("ssh is missing: install openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd started by root requires it


@pytest.fixture
def sshds(tmp_path: Path, privilege_separation: None) -> Iterator[Sshds]:
    made = Sshds(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def remote_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with all packages of this one except emca_deploy, which a remote machine gets only from the agent's file."""
    folder = tmp_path_factory.mktemp("remote")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in {path for kind in ("purelib", "platlib") for path in Path(sysconfig.get_path(kind)).iterdir()}:
        if "emca_deploy" not in path.name and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    python = str(folder / "bin" / "python")
    code = "import importlib.util; assert not importlib.util.find_spec('emca_deploy')"
    subprocess.run([python, "-c", code], env={}, cwd=folder, check=True)
    return python


@pytest.fixture
def far(sshds: Sshds, remote_python: str, monkeypatch: pytest.MonkeyPatch) -> Far:
    found = sshds()
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", remote_python)
    return found


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network: a convolution of 10 classes at 16 pixels, with a manifest."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from emca_deploy.artifacts import Manifest, Preprocessing, write_manifest

    path = tmp_path_factory.mktemp("model") / "net.onnx"
    weight = np.random.default_rng(0).standard_normal((10, 3, 16, 16)).astype(np.float32) / 16
    nodes = [helper.make_node("Conv", ["input", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    manifest = Manifest("onnx", "", "fp32", num_classes=10, preprocessing=Preprocessing(16, 18))
    write_manifest(path, manifest)
    return path
