"""The planner: its choices, their reasons, its refusals and their remedies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.tensorrt.model_facts import ModelFacts, read_facts
from emca_deploy.backends.tensorrt.planner import Plan, PlanRequest, make_plan
from emca_deploy.backends.tensorrt.steps import can_build, list_steps, trtexec_command
from emca_deploy.backends.tensorrt.versions import rules_of
from emca_deploy.errors import InputError, ModelError, UnknownNameError
from emca_deploy.machines.boards import BOARDS, JETPACKS, find_board, find_jetpack, jetpacks_of, numbers_of
from emca_deploy.machines.nvidia import RTX_CAPABILITIES, SUPPORT

FLOAT = ModelFacts(Path("net.onnx"), "fp32", 17, TensorSpec("images", "float", ("batch", 3, 64, 64)))
INT8 = ModelFacts(Path("net.int8.onnx"), "int8", 17, FLOAT.input)
HALF = ModelFacts(Path("net.fp16.onnx"), "fp16", 17, FLOAT.input)


def request(device: str, jetpack: str | None = None, version: str | None = None, **options: Any) -> PlanRequest:
    options.setdefault("backend", "tensorrt")
    return PlanRequest(device=find_board(device), jetpack=find_jetpack(jetpack) if jetpack else None, version=version, **options)


def planned(device: str, *where: str | None, model: ModelFacts = FLOAT, **options: Any) -> Plan:
    return make_plan(model, request(device, *where, **options))


def chosen(plan: Plan) -> tuple[str, str, tuple[str, ...], str | None]:
    return plan.quantization, plan.typing, plan.flags, plan.calibrate_for


@pytest.mark.parametrize(
    ("device", "jetpack", "version", "options", "expected"),
    [
        ("orin-nx", "6.2", None, {}, ("qdq", "typed", ("STRONGLY_TYPED",), "tensorrt")),
        ("orin-nx", "6.2", None, {"dla": True}, ("cache", "flagged", ("GPU_FALLBACK", "INT8", "FP16"), "tensorrt")),
        ("orin-nx", "6.2", None, {"dla": True, "precision": "fp16"}, ("none", "flagged", ("GPU_FALLBACK", "FP16"), None)),
        ("orin-nano", "6.0", None, {}, ("qdq", "flagged", ("INT8",), "tensorrt")),
        ("orin-nano", "6.0", None, {"precision": "fp32"}, ("none", "flagged", (), None)),
        ("orin-nano", "6.0", None, {"precision": "fp16"}, ("none", "flagged", ("FP16",), None)),
        ("agx-orin", "7.2", None, {}, ("qdq", "typed", ("STRONGLY_TYPED",), "tensorrt")),
        ("agx-orin", "7.2.2", None, {"dla": True, "precision": "fp16"}, ("none", "typed", ("GPU_FALLBACK",), None)),
        ("xavier-nx", "5.1.2", None, {"dla": True}, ("cache", "flagged", ("GPU_FALLBACK", "INT8", "FP16"), "tensorrt")),
        ("nano", "4.6.1", None, {"precision": "fp16"}, ("none", "flagged", ("FP16",), None)),
        ("8.6", None, "11.1", {}, ("qdq", "typed", (), "tensorrt")),
        ("sm_90", None, "8.6.1", {}, ("qdq", "flagged", ("INT8",), "tensorrt")),
        ("sm_120", None, "1.7", {"backend": "tensorrt-rtx"}, ("qdq", "typed", ("STRONGLY_TYPED",), "tensorrt-rtx")),
    ],
)
def test_choices(device: str, jetpack: str | None, version: str | None, options: dict[str, Any], expected: Any) -> None:
    plan = planned(device, jetpack, version, **options)
    assert chosen(plan) == expected
    assert plan.reasons


@pytest.mark.parametrize(
    ("device", "jetpack", "version", "options", "problem", "remedy"),
    [
        ("agx-orin", "7.2", None, {"dla": True}, "10.16 has no DLA int8", "10.7 or older"),
        ("agx-orin", None, "11.2", {"dla": True, "precision": "fp16"}, "11.2 has no DLA fp16", "10.7 or older"),
        ("agx-orin", "7.2.2", None, {"dla": True}, "INT8 on a DLA", "--precision fp16"),
        ("orin-nx", "7.2.2", None, {"dla": True, "precision": "fp16"}, "DLA of AGX Orin only", "leave --dla out"),
        ("agx-orin", "7.2", "11.4.1", {"dla": True, "precision": "fp16"}, "needs JetPack 7.2.2", "10.7 or older"),
        ("thor", "7.1", None, {"dla": True}, "Thor has no DLA", "agx-orin"),
        ("orin-nano", "6.2", None, {"dla": True}, "has no DLA", "orin-nx"),
        ("sm_87", "6.2", None, {"dla": True}, "compute capability 8.7", "orin-nx"),
        ("8.6", None, "10.3", {"dla": True}, "has no DLA", "leave --dla out"),
        ("orin-nx", "6.2", None, {"dla": True, "precision": "fp32"}, "does not compute in fp32", "fp16"),
        ("sm_87", None, "10.13.3", {}, "no build of tensorrt 10.13", "10.16 with JetPack 7.2"),
        ("sm_87", None, "10.8", {}, "no build of tensorrt 10.8", "10.7 on JetPack 6"),
        ("6.1", None, "10.0.1", {}, "sm_61", "older than 10.0"),
        ("7.0", None, "10.5", {}, "sm_70", "older than 10.5"),
        ("12.0", None, "10.7", {}, "sm_120", "10.8 or newer"),
        ("9.9", None, "10.7", {}, "sm_99", "known: 5.3"),
        ("nano", "4.6.6", None, {}, "has no int8", "--precision fp16"),
        ("6.1", None, "8.6.1", {"precision": "fp16"}, "has no fp16", "--precision int8"),
        ("orin-nx", "1.4", None, {}, "no JetPack is called", "6.2"),
        ("xavier-nx", "6.2", None, {}, "JetPack 6.2 is not for Jetson Xavier NX", "5.1.6"),
        ("orin-nx", "7.1", None, {}, "JetPack 7.1 is not for", "7.2"),
        ("8.6", "6.2", None, {}, "is no Jetson", "--tensorrt-version"),
        ("orin-nx", None, None, {}, "Orin NX", "--jetpack"),
        ("8.6", None, None, {}, "8.6", "--tensorrt-version"),
        ("8.6", None, "7.2", {}, "tensorrt 7.2", "8.0 to 11.x"),
        ("8.6", None, "ten", {}, "'ten'", "10.3"),
        ("xavier-nx", None, "8.5", {"dla": True}, "--tensorrt-version 8.5", "8.5.1"),
        ("orin-nx", None, "1.7", {"backend": "tensorrt-rtx"}, "sm_87", "--backend tensorrt"),
        ("8.9", None, "1.7", {"backend": "tensorrt-rtx", "dla": True}, "no DLA", "--backend tensorrt"),
        ("7.5", None, "1.7", {"backend": "tensorrt-rtx"}, "no float32 matrix product", "--backend tensorrt"),
        ("8.9", None, "1.3", {"backend": "tensorrt-rtx"}, "tensorrt-rtx 1.3", "1.4 to 1.x"),
    ],
)
def test_what_cannot_be(
    device: str, jetpack: str | None, version: str | None, options: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        planned(device, jetpack, version, **options)
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("model", "options", "problem"),
    [
        (INT8, {"dla": True}, "has Q/DQ"),
        (INT8, {"precision": "fp16"}, "Q/DQ.*--precision fp16"),
        (HALF, {}, "is fp16, and --precision int8"),
        (HALF, {"precision": "fp32"}, "is fp16, and --precision fp32"),
    ],
)
def test_models_it_does_not_start_from(model: ModelFacts, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        planned("orin-nx", "6.2", model=model, **options)
    assert "fp32 model" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"activation": np.uint8}, "uint8 zero point"),
        ({"bias": np.int32}, r"node 'stem.bias/d' dequantizes an INT32 bias"),
    ],
)
def test_types_that_tensorrt_refuses_or_misreads(make_net: Callable[..., Path], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        planned("orin-nx", "6.2", model=read_facts(make_net(**options)))
    assert "--backend tensorrt" in caught.value.remedy


def test_zero_points(make_net: Callable[..., Path], tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(make_net())
    zero = next(tensor for tensor in proto.graph.initializer if tensor.name == "images/zero")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), zero.name))
    onnx.save(proto, tmp_path / "asymmetric.onnx")
    facts = read_facts(tmp_path / "asymmetric.onnx")
    assert facts.asymmetric == ("images/q", "images/d")
    with refusing(ModelError, "'images/q'"):
        planned("orin-nx", "6.2", model=facts)
    for node in proto.graph.node:
        if node.name in facts.asymmetric:
            del node.input[2]
    onnx.save(proto, tmp_path / "default.onnx")
    assert read_facts(tmp_path / "default.onnx").uint8 == ("images/q",)  # QuantizeLinear's default is uint8


def test_facts_of_a_model(make_net: Callable[..., Path]) -> None:
    facts = read_facts(make_net())
    assert (facts.precision, facts.opset, facts.input.name, facts.dynamic, facts.off_dla) == ("int8", 17, "images", True, 2)
    assert facts.uint8 == facts.asymmetric == facts.int32 == ()
    assert read_facts(make_net(quantized=False)).precision == "fp32"
    assert not read_facts(make_net(batch=4)).dynamic
    assert not facts.half_scales


def test_constants_may_be_nodes(make_net: Callable[..., Path], tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(make_net(activation=np.uint8))
    nodes = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer]
    for node in nodes:
        node.attribute.insert(0, onnx.helper.make_attribute("note", "x"))
    whole = [*nodes, *proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(whole)
    onnx.save(proto, tmp_path / "nodes.onnx")
    assert read_facts(tmp_path / "nodes.onnx").uint8 == read_facts(make_net(activation=np.uint8)).uint8 != ()


def test_fp16_scales_are_seen(make_net: Callable[..., Path], tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(make_net())
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/scale"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    onnx.save(proto, tmp_path / "half.onnx")
    assert read_facts(tmp_path / "half.onnx").half_scales


def test_files_that_are_no_classifier(make_net: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    for path, problem in (
        (tmp_path / "none.onnx", "no such file"),
        (tmp_path / "text.onnx", "not an ONNX file"),
        (make_net(size="side"), "not .N, C, H, W. of a fixed size"),
    ):
        with pytest.raises(ModelError, match=problem):
            read_facts(path)


def test_an_int8_model_needs_no_calibration() -> None:
    plan = planned("orin-nx", "6.2", model=INT8)
    assert (plan.quantization, plan.calibrate_for) == ("qdq", None)
    assert [step.where for step in list_steps(plan, INT8)] == ["on the device"]


def test_steps_lead_from_the_model_to_the_engine() -> None:
    plan = planned("orin-nx", "6.2", dla=True)
    steps = list_steps(plan, FLOAT, Path("my images"))
    assert [(step.where, step.command) for step in steps] == [
        (
            "here",
            "emca-deploy calibrate net.onnx --data 'my images' --backend tensorrt -o net.tensorrt.onnx "
            "--cache net.cache --tensorrt-version 10.3.0 --recover none",
        ),
        (
            "on the device",
            "emca-deploy build net.onnx --backend tensorrt -o net.engine --calibration-cache net.cache --dla-core 0 --batch 1",
        ),
    ]
    assert [step.command for step in list_steps(planned("8.6", None, "11.0", precision="fp16"), FLOAT)] == [
        "emca-deploy export CHECKPOINT --precision fp16 -o net.fp16.onnx",
        "emca-deploy build net.fp16.onnx --backend tensorrt -o net.engine",
    ]
    rtx = list_steps(planned("8.9", None, "1.7", backend="tensorrt-rtx"), FLOAT)
    assert rtx[-1].where == "here"
    assert rtx[-1].command.endswith("--target-capability 8.9")


@pytest.mark.parametrize(
    ("where", "options", "has", "lacks"),
    [
        (("orin-nx", "6.2"), {}, "--stronglyTyped --useSpinWait --useCudaGraph --exposeDMA", "--int8"),
        (("orin-nx", "6.2"), {"dla": True}, "--int8 --fp16 --calib=net.cache --useDLACore=0 --allowGPUFallback", "CudaGraph"),
        (("orin-nano", "6.0"), {}, "--int8", "--stronglyTyped"),
        (("nano", "4.6.1"), {"precision": "fp16"}, "--fp16", "--int8"),
        (("8.6", None, "11.1"), {}, "--onnx=net.tensorrt.onnx", "--int8"),
        (("8.6", None, "11.1"), {"precision": "fp16"}, "--onnx=net.fp16.onnx", "--fp16"),
        (("8.6", None, "11.1"), {"precision": "fp32"}, "--onnx=net.onnx", "--stronglyTyped"),
    ],
)
def test_trtexec_gets_only_what_its_version_knows(where: Any, options: dict[str, Any], has: str, lacks: str) -> None:
    command = trtexec_command(planned(*where, **options), FLOAT)
    assert command is not None
    assert has in command
    assert lacks not in command
    assert command.startswith("/usr/src/tensorrt/bin/trtexec" if "." not in where[0] else "trtexec ")


def test_a_dla_gets_one_shape_and_a_gpu_a_range() -> None:
    gpu, dla = (trtexec_command(planned("orin-nx", "6.2", dla=dla), FLOAT) for dla in (False, True))
    assert "--minShapes=images:1x3x64x64 --optShapes=images:1x3x64x64 --maxShapes=images:64x3x64x64" in str(gpu)
    assert "--shapes=images:1x3x64x64" in str(dla)
    assert "Shapes" not in str(dla)
    assert trtexec_command(planned("8.9", None, "1.7", backend="tensorrt-rtx"), FLOAT) is None


def test_an_fp16_float_part_wants_the_models_own_types(tmp_path: Path) -> None:
    mixed = ModelFacts(INT8.path, "int8", 20, FLOAT.input, half_scales=True)
    assert planned("orin-nx", "6.2", model=mixed).typing == "typed"
    for jetpack in ("6.0", "5.1.2"):
        with refusing(ModelError, "fp16"):
            planned("orin-nx", jetpack, model=mixed)


@pytest.mark.parametrize(
    ("version", "opset"),
    [("8.2.1", 13), ("8.4.1", 17), ("8.6.2", 17), ("9.3", 19), ("10.0.1", 20), ("10.16.2", 24), ("11.4.1", 25)],
)
def test_the_newest_opset_of_every_version(version: str, opset: int) -> None:
    """The opsets come from docs/operators.md in each branch of onnx-tensorrt."""
    for given, warns in ((opset, False), (opset + 1, True)):
        model = ModelFacts(FLOAT.path, "fp32", given, FLOAT.input)
        assert any("opset" in text for text in planned("8.0", None, version, model=model).warnings) is warns


def test_old_boards_have_trtexec_only() -> None:
    """Our builder needs TensorRT 8.6 and Python 3.10."""
    assert not can_build(planned("xavier-nx", "5.1.2"))
    assert can_build(planned("orin-nx", "6.0"))
    assert not can_build(planned("8.6", None, "8.5.1"))


def test_what_may_go_wrong_is_said() -> None:
    newer = ModelFacts(FLOAT.path, "fp32", 20, FLOAT.input, off_dla=9)
    assert any(
        "opset 20" in text and "convert_version(model, 17)" in text
        for text in planned("8.6", None, "8.6.1", model=newer).warnings
    )
    assert planned("orin-nx", "6.2", model=newer).warnings == ()
    assert any("9 global poolings" in text for text in planned("orin-nx", "6.2", model=newer, dla=True).warnings)
    assert any("not certain" in text for text in planned("thor", "7.1").warnings)
    assert planned("thor", "7.1", "10.13.3").warnings == ()
    assert planned("thor", "7.0").warnings == ()


@pytest.mark.parametrize("name", ["8.7", "sm_87", "SM87", "87"])
def test_compute_capabilities(name: str) -> None:
    device = find_board(name)
    assert (device.capability, device.is_jetson, device.dla) == ("8.7", True, None)


def test_names_of_devices() -> None:
    assert find_board("Jetson-Orin_NX") is BOARDS["orin-nx"]
    assert find_board("sm_120").capability == "12.0"
    with pytest.raises(UnknownNameError) as caught:
        find_board("orin-n")
    assert "orin-nx" in caught.value.remedy


def test_the_tables_agree() -> None:
    assert all(board.capability in SUPPORT for board in BOARDS.values())
    for board in BOARDS.values():
        for version in jetpacks_of(board):  # the TensorRT of a JetPack has kernels for the JetPack's boards
            precision = "fp16" if board.capability in ("5.3", "6.2") else "int8"
            planned(board.name, version, precision=precision)
    for pack in JETPACKS.values():
        assert any(pack.version in jetpacks_of(board) for board in BOARDS.values())
    assert numbers_of("10.3.0.30") == (10, 3, 0)


def test_the_planner_and_the_builder_agree_on_versions() -> None:
    for pack in JETPACKS.values():
        if numbers_of(pack.tensorrt) < (8, 6, 0):
            continue
        rules, plan = rules_of("tensorrt", pack.tensorrt), planned("8.6", None, pack.tensorrt)
        assert (plan.typing == "typed") == (rules.strong_flag or not rules.weak_typing)
        if pack.version in jetpacks_of(BOARDS["agx-orin"]):
            try:
                found = planned("agx-orin", pack.version, dla=True, precision="fp16").request.dla
            except InputError:
                found = False
            assert found == rules.dla


def test_rtx_capabilities_are_the_librarys(rtx: Any) -> None:
    members = {name[2:-1] + "." + name[-1] for name in rtx.ComputeCapability.__members__ if name.startswith("SM")}
    assert members == set(RTX_CAPABILITIES)
