"""Finding trtexec and identifying its version."""

import pytest

from emca_deploy.backends.tensorrt.tool.find import find_trtexec
from emca_deploy.backends.tensorrt.tool.log import version_of
from emca_deploy.backends.tensorrt.tool.process import spawn_here
from emca_deploy.errors import MissingError


@pytest.mark.parametrize(
    ("digits", "version"),
    [
        ("8001", (8, 0, 1)),
        ("8205", (8, 2, 5)),
        ("8502", (8, 5, 2)),
        ("100300", (10, 3, 0)),
        ("101302", (10, 13, 2)),
        ("110401", (11, 4, 1)),
    ],
)
def test_versions_are_spelled_in_two_ways(digits, version) -> None:
    assert version_of(digits) == version


@pytest.mark.parametrize("version", ["8001", "8601", "110100"])
def test_the_first_that_runs_is_taken(stand_in, tmp_path, version) -> None:
    one = stand_in(version)
    tool = find_trtexec(places=(str(tmp_path / "not-here"), str(one.path)))
    assert (tool.path, tool.version) == (str(one.path), version_of(version))


def test_none_says_where_it_looked(tmp_path) -> None:
    with pytest.raises(MissingError, match=str(tmp_path / "nowhere")):
        find_trtexec(places=(str(tmp_path / "nowhere"),))


def test_a_shell_at_the_far_end_says_not_found_by_its_status(stand_in, tmp_path) -> None:
    """A command over a connection always starts; for a missing tool the remote shell exits with 127."""

    def far(arguments):
        return spawn_here(["sh", "-c", '"$@"', "sh", *arguments])

    one = stand_in()
    assert find_trtexec(far, places=(str(tmp_path / "nowhere"), str(one.path))).version == (10, 3, 0)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("echo 'trtexec: error while loading shared libraries: libnvinfer.so.10: cannot open shared object file' >&2; exit 127",
         "libnvinfer.so.10"),
        ("echo '&&&& RUNNING TensorRT.trtexec [TensorRT v7103] # trtexec'", "7.1.3 is too old"),
        ("echo hello", "version.*hello"),
        ("exit 3", "nothing.*3"),
    ],
)  # fmt: skip
def test_one_that_is_of_no_use_says_why(tmp_path, script, what) -> None:
    path = tmp_path / "trtexec"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(MissingError, match=what):
        find_trtexec(path=str(path))


def test_a_broken_one_does_not_hide_a_good_one(stand_in, tmp_path) -> None:
    broken = tmp_path / "trtexec"
    broken.write_text("#!/bin/sh\necho nonsense\n")
    broken.chmod(0o755)
    assert find_trtexec(places=(str(broken), str(stand_in().path))).version == (10, 3, 0)
