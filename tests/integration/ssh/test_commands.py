"""Plain commands through a real sshd, the way trtexec runs on a machine without Python."""

import time

import pytest

from emca_deploy.backends.tensorrt.tool.find import find_trtexec
from emca_deploy.backends.tensorrt.tool.process import run_to_end
from emca_deploy.errors import WorkerError
from emca_deploy.remote.address import parse_address
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.hold import spawn_on


@pytest.fixture
def spawn(far):
    with Connection(parse_address(far.target)) as connection:
        run_to_end(spawn_on(connection), ["true"], 30)  # the master connection is established
        yield spawn_on(connection)


def test_words_arrive_as_they_are_and_so_does_the_status(spawn):
    words = ["a b", "$(touch x)", "it's", 'say "no"', "", "*", "é\\n", ";exit"]
    finished = run_to_end(spawn, ["sh", "-c", 'printf "<%s>\\n" "$@"; echo wrong >&2; exit 7', "sh", *words], 30)
    assert finished.code == 7
    assert finished.output.splitlines() == [f"<{word}>" for word in words] + ["wrong"]


def test_a_command_that_hangs_is_stopped_there(far, spawn):
    with pytest.raises(WorkerError):
        run_to_end(spawn, ["sleep", "300"], 1.0)
    until_gone(far, "sleep\x00300")


def test_a_command_is_stopped_there_when_the_line_goes_down(far, spawn):
    process = spawn(["sleep", "301"])
    while not far.running("sleep\x00301"):
        time.sleep(0.05)
    far.cut()
    until_gone(far, "sleep\x00301")
    process.communicate(timeout=30)


def until_gone(far, word):
    end = time.monotonic() + 30
    while far.running(word):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_trtexec_is_found_there(far, spawn, tmp_path):
    tool = tmp_path / "trtexec"
    tool.write_text('#!/bin/sh\necho "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # $0 $*"\n')
    tool.chmod(0o755)
    found = find_trtexec(spawn, str(tool))
    assert found.version == (10, 3, 0)
