"""File transfers: once per hash, resumed where they stopped, and complete."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.remote.address import parse_address
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.files import Blob, fetch, send
from emca_deploy.remote.package import agent_bytes
from emca_deploy.remote.probe import look
from emca_deploy.requests import ProfileRequest
from emca_deploy.targets.registry import parse


def done(request, progress=None):
    return parse(request.target).run(request, progress)


FIRST_MOST, SECOND_MOST = 1_000_000, 100_000


@pytest.fixture
def line(far):
    with Connection(parse_address(far.target)) as connection:
        look(connection)
        yield connection


@pytest.fixture(scope="module")
def content():
    return Blob.of_bytes(np.random.default_rng(0).bytes(3_000_000))


def test_the_second_time_little_is_sent(far, model):
    request = ProfileRequest((str(model),), target=far.target, duration_s=0.2, max_duration_s=0.2, warmup_s=0.1, telemetry=False)
    first, second = (done(request)[0].environment["ssh"]["sent_bytes"] for _ in range(2))
    assert len(agent_bytes()) < first < len(agent_bytes()) + model.stat().st_size + SECOND_MOST < FIRST_MOST
    assert second < SECOND_MOST
    assert not list((far.cache / "runs").iterdir())


def test_what_arrived_before_is_not_sent_again(far, line, content):
    folder = far.cache / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{content.digest}.part").write_bytes(content.content[:2_500_000])
    connection = line
    before = connection.sent_bytes
    send(connection, content)
    assert 500_000 <= connection.sent_bytes - before < 550_000
    assert (folder / content.digest).read_bytes() == content.content
    assert [path.name for path in folder.iterdir()] == [content.digest]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * 4_000_000])
def test_a_part_that_is_another_file_s(far, line, content, part):
    folder = far.cache / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{content.digest}.part").write_bytes(part)
    send(line, content)
    assert (folder / content.digest).read_bytes() == content.content


def test_a_damaged_file_in_the_cache_is_sent_again(far, line, content):
    send(line, content)
    place = far.cache / "blobs" / content.digest
    place.write_bytes(b"?" + content.content[1:])
    send(line, content)
    assert place.read_bytes() == content.content


def test_a_connection_cut_while_sending(far, line, content):
    from emca_deploy.remote.errors import ConnectionLostError

    connection = line
    with pytest.raises(ConnectionLostError):
        send(connection, content, lambda done, total: far.cut() if done > 1_000_000 else None)
    far.wait_until_nothing_runs()
    part = far.cache / "blobs" / f"{content.digest}.part"
    arrived = part.stat().st_size
    assert content.content.startswith(part.read_bytes())
    with Connection(connection.address) as again:
        look(again)
        before = again.sent_bytes
        send(again, content)
        assert again.sent_bytes - before < content.size - arrived + 50_000
    assert hashlib.sha256((far.cache / "blobs" / content.digest).read_bytes()).hexdigest() == content.digest


def test_a_file_comes_home_whole_or_not_at_all(far, line, tmp_path):
    from emca_deploy.errors import MissingError, WorkerError

    connection = line
    there, here = tmp_path / "there", tmp_path / "here"
    there.write_bytes(b"\0\n\xff" * 100_000)
    fetch(connection, str(there), hashlib.sha256(there.read_bytes()).hexdigest(), here)
    assert here.read_bytes() == there.read_bytes()
    with pytest.raises(WorkerError, match="damaged"):
        fetch(connection, str(there), "0" * 64, tmp_path / "other")
    with pytest.raises(MissingError, match="No such file"):
        fetch(connection, str(tmp_path / "gone"), "0" * 64, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_agent_needs_numpy_and_a_runtime_only(sshds, model, tmp_path, monkeypatch):
    import numpy
    import onnxruntime

    packages = tmp_path / "packages"
    packages.mkdir()
    for module in (numpy, onnxruntime):
        folder = Path(module.__file__).parent
        for path in (folder, folder.with_name(folder.name + ".libs"), *folder.parent.glob(f"{folder.name}-*.dist-info")):
            if path.exists():
                (packages / path.name).symlink_to(path)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexport PYTHONPATH={packages}\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    found = sshds()
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", str(bare))
    with Connection(parse_address(found.target)) as connection:
        assert set(look(connection).versions) == {"numpy", "onnxruntime"}
    # The script starts the interpreter that reports its path, and that path runs all later commands: it must be the script's.
    report, _ = done(
        ProfileRequest((str(model),), target=found.target, duration_s=0.2, max_duration_s=0.2, warmup_s=0.1, telemetry=False)
    )
    assert report.complete
    assert report.environment["ssh"]["python"] == str(bare)
