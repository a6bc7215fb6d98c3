"""Equal networks get equal INT8 models from any exporter's file: the same layers, and logits as close to the float ones."""

from collections import Counter
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from emca_deploy.canonical.canonicalize import canonical_model
from emca_deploy.onnx_file.file import OnnxFile
from zoo.networks import NETWORKS, to_onnx
from zoo.quantizing import Member, Quantized
from zoo.rewrites import REWRITES

BACKENDS = ("openvino", "onnxruntime", "tensorrt")
MOST_DB = 0.5
MOST_SENSITIVE_DB = 1.0
"""Limit where a small difference grows: weights in float16 are off by up to 2^-11; everything recovered decides on six images."""
FAST = {"recover": "bias", "method": "minmax"}
TORCH_EXPORTS = {"old": False, "new": True}

AT_THE_ENDS = {
    "normalisation_inside": {"Sub", "Div"},
    "normalisation_of_bytes_inside": {"Sub", "Div"},
    "normalisation_as_batch_norm_inside": {"Mul", "Add"},
    "normalisation_as_factor_and_term_inside": {"Mul", "Add"},
    "channels_last": {"Transpose"},
    "softmax_at_end": {"Softmax"},
    "float16_throughout": {"Cast"},
}
"""Operators of a file's interface stay in its canonical graph."""

WITHIN_ATTENTION = {
    "across_in_one_dimension": {"Squeeze", "Transpose", "Unsqueeze", "Reshape"},
    "channels_tiled": {"Tile", "Concat"},
}
"""Operators of attention, which stays in float in every form."""


@cache
def network(name: str, seed: int = 0) -> onnx.ModelProto:
    return to_onnx(NETWORKS[name], seed)


def rewritten(name: str, rewrites: tuple[str, ...], seed: int = 0) -> onnx.ModelProto:
    model = network(name, seed)
    for rewrite in rewrites:
        model = REWRITES[rewrite].apply(model, np.random.default_rng(seed))
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a function that quantizes an unchanged network once."""
    folder = tmp_path_factory.mktemp("plain")

    @cache
    def quantize(name: str, backend: str, seed: int = 0, **how: str) -> Quantized:
        member = Member(network(name, seed), REWRITES["nothing"], folder / f"{name}-{seed}-{'-'.join(how.values())}")
        return member.quantize(backend, **how)

    return quantize


def check_equal(found: Quantized, wanted: Quantized, most_db: float = MOST_DB) -> None:
    assert found.layers == wanted.layers
    assert abs(found.sqnr_db - wanted.sqnr_db) <= most_db


def operators(model: onnx.ModelProto, path, **where) -> Counter:
    onnx.save(model, path, **where)
    canonical = canonical_model(OnnxFile.open(path))
    assert not canonical.warnings
    return Counter(node.op_type for node in canonical.model.graph)


WITH_CLIPS = ("opset_9", "relu6_as_min_and_relu", "pads_apart", "pads_named_same", "batch_norm_unfolded", "paddle_style")
CHECKED = [("multiscale", rewrite) for rewrite in REWRITES] + [("mobile", rewrite) for rewrite in WITH_CLIPS]


@pytest.mark.parametrize(("name", "rewrite"), CHECKED)
def test_the_canonical_graph_has_the_same_operators(tmp_path, monkeypatch, name, rewrite):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0} if REWRITES[rewrite].sidecar else {}
    found = operators(rewritten(name, (rewrite,)), tmp_path / "rewritten.onnx", **where)
    wanted = operators(network(name), tmp_path / "plain.onnx")
    differing = set(found - wanted) | set(wanted - found)
    assert differing <= AT_THE_ENDS.get(rewrite, set()) | WITHIN_ATTENTION.get(rewrite, set())


CHOSEN = ("normalisation_inside", "channels_last", "float16_throughout", "names_removed", "opset_9")
CHOSEN += ("weights_beside", "several_outputs", "gates_expanded", "batch_of_one", "paddle_style")
"""Rewrites for which equal operators do not prove an equal result."""


@pytest.mark.parametrize("rewrite", CHOSEN)
def test_a_rewritten_network_is_quantized_as_the_plain_one(tmp_path, plain, rewrite):
    member = Member(rewritten("multiscale", (rewrite,)), REWRITES[rewrite], tmp_path)
    check_equal(member.quantize("tensorrt", **FAST), plain("multiscale", "tensorrt", **FAST))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "rewrite"), enumerate(REWRITES))
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_and_placement(tmp_path, plain, name, number, rewrite):
    member = Member(rewritten(name, (rewrite,)), REWRITES[rewrite], tmp_path)
    # Each network meets each placement in a third of the rewrites; one network meets all of them.
    for backend in BACKENDS if name == "multiscale" else [BACKENDS[(number + list(NETWORKS).index(name)) % len(BACKENDS)]]:
        check_equal(member.quantize(backend, **FAST), plain(name, backend, **FAST))


@pytest.mark.slow
@pytest.mark.parametrize("rewrite", CHOSEN)
def test_every_placement_with_everything_recovered(tmp_path, plain, rewrite):
    member = Member(rewritten("multiscale", (rewrite,)), REWRITES[rewrite], tmp_path)
    for backend in BACKENDS:
        check_equal(member.quantize(backend), plain("multiscale", backend), MOST_SENSITIVE_DB)


LAST = [name for name, rewrite in REWRITES.items() if rewrite.pixels or rewrite.sidecar or rewrite.half or "opset" in name]
LAST += [
    "softmax_at_end",
    "several_outputs",
    "channels_last",
    "paddle_style",
    "weights_in_constants",
    "initializers_among_inputs",
]
FIRST = [name for name in REWRITES if name not in LAST]
"""Rewrites whose results the others accept."""


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.lists(st.sampled_from(FIRST), max_size=4, unique=True),
    st.sampled_from(LAST),
    st.integers(0, 3),
    st.sampled_from(BACKENDS),
)
def test_rewrites_of_rewrites(tmp_path_factory, plain, name, first, last, seed, backend):
    try:
        model = rewritten(name, (*first, last), seed)
    except (IndexError, StopIteration, KeyError):  # an earlier rewrite removed what a later one looks for
        return
    except onnx.checker.ValidationError:  # or produced a form that an older opset lacks
        return
    if any(own.opset_import[0].version != model.opset_import[0].version for own in model.functions):
        return  # a later rewrite changed the opset of the graph, but not of the functions
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except (ort_errors.InvalidGraph, ort_errors.Fail):  # two nodes of one name, or an operator's form of another opset
        return
    member = Member(model, REWRITES[last], tmp_path_factory.mktemp("mixed"))
    most_db = MOST_SENSITIVE_DB if REWRITES[last].half else MOST_DB
    check_equal(member.quantize(backend, **FAST), plain(name, backend, seed, **FAST), most_db)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("exporter", TORCH_EXPORTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_torch_exports(tmp_path, plain, name, exporter, dynamic):
    from zoo.torch_networks import exported

    model = exported(NETWORKS[name], dynamo=TORCH_EXPORTS[exporter], dynamic=dynamic)
    member = Member(model, REWRITES["nothing"], tmp_path)
    for backend in BACKENDS:
        check_equal(member.quantize(backend, **FAST), plain(name, backend, **FAST))
