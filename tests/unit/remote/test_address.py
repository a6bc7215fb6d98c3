"""Names of machines, ssh's error messages, and local and remote file names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.remote.address import Address, parse_address
from emca_deploy.remote.errors import failure
from emca_deploy.remote.probe import Facts
from emca_deploy.targets.shipment import Shipment
from emca_deploy.targets.ssh import check_backends, trtexec_suffices

BOARD = Address("board", "pi", 2222)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://board", Address("board")),
        ("ssh://pi@board:2222", BOARD),
        ("ssh://board/", Address("board")),
        ("ssh://board/gpu:1", Address("board", target="gpu:1")),
        ("ssh://[fe80::1%eth0]:22", Address("fe80::1%eth0", port=22)),
        ("ssh://me@192.168.0.7/jetson", Address("192.168.0.7", "me", target="jetson")),
    ],
)
def test_what_names_a_machine(text, expected):
    assert parse_address(text) == expected


@given(st.text())
def test_a_name_never_becomes_an_option_or_a_shell_s_word(text):
    try:
        found = parse_address(f"ssh://{text}")
    except InputError:
        return
    for word in (found.host, found.user or "x"):
        assert not word.startswith("-")
        assert not set(word) & set(" \t\n;|&$`'\"\\<>()*?!#~")
    assert found.options()[-2] == "--"


def test_a_machine_is_named_as_it_can_be_named_again():
    for text in ("ssh://board", "ssh://pi@board:2222", "ssh://[::1]:22"):
        assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ssh: Could not resolve hostname board: Name or service not known", "no host of that name"),
        ("ssh: connect to host board port 22: Connection refused", "nothing answers"),
        ("ssh: connect to host board port 22: Connection timed out", "does not answer"),
        ("ssh: connect to host board port 22: No route to host", "cannot be reached"),
        ("No ED25519 host key is known for board and you have requested strict checking.", "host key is unknown"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "key has changed"),
        ("pi@board: Permission denied (publickey).", "refuses the login"),
        ("/x/config: line 3: Bad configuration option: foo", "line 3"),
        ("something nobody has seen before", "something nobody has seen before"),
        ("", "no reason"),
    ],
)
def test_what_ssh_says(said, words):
    error = failure(BOARD, said)
    assert isinstance(error, MissingError | InputError)
    assert words in error.problem
    assert "{" not in error.remedy


def test_what_is_to_be_typed_is_for_this_configuration_and_the_real_host(monkeypatch):
    resolved = {"hostname": "192.168.0.7", "port": "2200", "userknownhostsfile": "/k/one /k/two"}
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", "/my configs/ssh")
    said = "No ED25519 host key is known for [192.168.0.7]:2200 and you have requested strict checking."
    remedy = failure(Address("board"), said, resolved).remedy
    assert "ssh -F '/my configs/ssh' board;" in remedy
    assert remedy.endswith("ssh-keyscan -p 2200 192.168.0.7 >> /k/one")
    changed = failure(Address("board"), "REMOTE HOST IDENTIFICATION HAS CHANGED", resolved).remedy
    assert "ssh-keygen -R '[192.168.0.7]:2200' -f /k/one" in changed
    monkeypatch.delenv("EMCA_DEPLOY_SSH_CONFIG")
    assert failure(Address("board"), said).remedy.endswith("ssh-keyscan board >> ~/.ssh/known_hosts")
    wrong = failure(BOARD, "a first line\n/x/config: line 3: Bad configuration option: foo\nterminating")
    assert wrong.problem.endswith("/x/config: line 3: Bad configuration option: foo")


@pytest.mark.parametrize(
    ("facts", "backends", "builds", "expected"),
    [
        (Facts(trtexec="/t"), {"onnxruntime"}, True, True),
        (Facts(), {"tensorrt"}, True, False),
        (Facts(python="p", trtexec="/t", versions={"numpy": "2"}), {"tensorrt"}, False, True),
        (Facts(python="p", trtexec="/t", versions={"numpy": "2"}), {"tensorrt", "openvino"}, False, False),
        (Facts(python="p", trtexec="/t", versions={"tensorrt": "10"}), {"tensorrt"}, False, False),
        (Facts(python="p", trtexec="/t", versions={"tensorrt": "10"}), {"tensorrt"}, True, True),
        (Facts(python="p", trtexec="/t", versions={"tensorrt": "10", "onnx": "1"}), {"tensorrt"}, True, False),
    ],
)
def test_when_trtexec_does_the_work(facts, backends, builds, expected):
    assert trtexec_suffices(facts, backends, builds=builds) == expected


def test_tensorrt_without_onnx_builds_nothing():
    facts = Facts(python="/p", versions={"tensorrt": "10.3.0"})
    check_backends(BOARD, facts, ["tensorrt"])
    with refusing(MissingError, "onnx", "'tensorrt'"):
        check_backends(BOARD, facts, ["tensorrt", None], builds=True)


@given(st.text())
def test_whatever_ssh_says_is_an_error_of_ours(said):
    assert isinstance(failure(BOARD, said), EmcaError)


def test_names_there_are_plain_and_come_back_as_the_user_wrote_them(tmp_path):
    from emca_deploy.artifacts import Manifest, write_manifest

    paths = []
    for name in ("a+b=c $(x).onnx", "a b.onnx"):
        path = tmp_path / name
        path.write_bytes(b"")
        write_manifest(path, Manifest("engine", "", "fp32", backend="onnxruntime"))
        paths.append(path)
    for path in paths:
        path.rename(path.with_suffix(".engine"))
        (tmp_path / f"{path.name}.manifest.json").rename(tmp_path / f"{path.stem}.engine.manifest.json")
    files = Shipment()
    first, second = (str(path.with_suffix(".engine")) for path in paths)
    there = files.add_all([first, f"openvino={second}"])
    assert there == ("@0/a_b_c___x_.engine", "openvino=@1/a_b.engine")
    assert files.local({"a": [there[1], 3, None]}) == {"a": [f"openvino={second}", 3, None]}
    assert set(files.blobs) == {
        f"@{i}/{name}{end}" for i, name in enumerate(("a_b_c___x_.engine", "a_b.engine")) for end in ("", ".manifest.json")
    }


def test_several_builds_of_one_candidate_stay_together(tmp_path):
    from emca_deploy.artifacts import Manifest, write_manifest

    for name in ("one.engine", "two.engine"):
        (tmp_path / name).write_bytes(name.encode())
        write_manifest(tmp_path / name, Manifest("engine", "", "fp32", backend="onnxruntime"))
    files = Shipment()
    together = f"{tmp_path}/one.engine+{tmp_path}/two.engine"
    (there,) = files.add_all([together])
    assert there == "@0/one.engine+@1/two.engine"
    assert files.local(there) == together


def test_weights_outside_an_onnx_file_go_along(tmp_path):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    files = Shipment()
    files.add(str(path))
    assert set(files.blobs) == {"@0/m.onnx", "@0/m.onnx.manifest.json", "@0/w.bin"}
    (tmp_path / "w.bin").unlink()
    with pytest.raises(EmcaError, match=r"w\.bin"):
        Shipment().add(str(path))
