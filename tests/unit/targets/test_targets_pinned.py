"""What each target makes of requests and artifacts, for all combinations, and what is missing on a remote machine.

Where a change is meant, regenerate the golden file with --regenerate-golden.
"""

import json
import re
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy import _machine
from emca_deploy._machine import CpuInfo
from emca_deploy.artifacts import Manifest, TensorSpec, write_manifest
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.remote.probe import Facts
from emca_deploy.requests import BuildRequest, LogitsRequest, ProfileRequest
from emca_deploy.results.latency import LatencyResult
from emca_deploy.targets import by_trtexec, local
from emca_deploy.targets.by_trtexec import _raw, _send_engine
from emca_deploy.targets.candidates import CandidateOptions, run_notes
from emca_deploy.targets.capabilities import Capabilities, Lack, _remote_lacks
from emca_deploy.targets.cpu import CpuTarget
from emca_deploy.targets.devices_file import devices_file
from emca_deploy.targets.gpu import GpuTarget, gpu_steps
from emca_deploy.targets.named_artifacts import grouped, split_artifacts
from emca_deploy.targets.named_machines import Machine
from emca_deploy.targets.registry import parse
from emca_deploy.targets.settings import with_values
from emca_deploy.targets.shipment import Shipment
from emca_deploy.targets.ssh import check_backends, needed_backend, trtexec_suffices
from emca_deploy.telemetry.nvml import NvmlSource
from emca_deploy.telemetry.processor import CpuFrequencySource


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def outcome(make, *arguments, **options):
    """Return what a function returns, or its error's class with the numbers, options and names in its sentences."""
    try:
        return make(*arguments, **options)
    except EmcaError as exc:
        facts = re.findall(r"--[a-z-]+|'[^']*'", f"{exc.problem} {exc.remedy}")
        return f"{type(exc).__name__} {' '.join(facts)}"


def as_json(document):
    return json.loads(json.dumps(document, default=str))


def test_protocols_of_requests(golden):
    found = {}
    requests = {
        "one": ProfileRequest(("a",)),
        "two": ProfileRequest(("a", "b"), duration_s=0.2, seed=3),
        "backends": ProfileRequest(("a",), backends=("x", "y"), max_duration_s=7.0, warmup_s=0.5),
        "offline": ProfileRequest(("a", "b"), scenario="offline", processes=3),
        "batch": ProfileRequest(("a",), scenario="offline", batch=5, duration_s=60.0),
    }
    for (name, request), target in product(requests.items(), (CpuTarget(), GpuTarget())):
        found[f"{name} {target.name}"] = asdict(target.protocol(request))
    golden("targets/protocols", as_json(found))


def test_steps_of_a_gpu_and_of_a_processor(golden):
    found = {}
    for backends, device in product((("torch", "tensorrt-rtx", "onnxruntime"), ("tensorrt",), ()), (0, 2)):
        found[f"{backends} {device}"] = [asdict(step) for step in gpu_steps(backends, "8.9", device)]
    for backends in ((), ("onnxruntime",), ("openvino", "tensorrt")):
        found[f"cpu {backends}"] = asdict(CpuTarget().deployment(backends))
    golden("targets/steps", as_json(found))


@pytest.fixture
def models():
    """Return a function that writes files of each kind and returns their paths."""
    import onnx.parser

    def write():
        graph = "(float[batch,3,8,8] images) => (float[batch,3] logits) { m = GlobalAveragePool(images) logits = Flatten(m) }"
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nclassifier {graph}')
        names = {"plain.onnx": None, "ort.onnx": ("onnx", "onnxruntime"), "ov.onnx": ("onnx", "openvino")}
        names |= {
            "net.engine": ("engine", "tensorrt"),
            "rtx.engine": ("engine", "tensorrt-rtx"),
            "net.pth": None,
            "odd.bin": None,
        }
        for name, own in names.items():
            Path(name).write_bytes(model.SerializeToString() if name.endswith(".onnx") else b"bytes")
            if own is not None:
                write_manifest(Path(name), Manifest(own[0], "", "int8", own[1]))
        return tuple(names)

    return write


FACTS = {
    "nothing": Facts(),
    "python": Facts(python="python3", python_version="3.11.2", versions={"numpy": "2.0"}),
    "runtime": Facts(python="python3", python_version="3.11.2", versions={"numpy": "2.0", "PIL": "11", "onnxruntime": "1.20"}),
    "tensorrt": Facts(
        python="python3", python_version="3.11.2", trtexec="/t", clock_offset_s=99.0,
        versions={"numpy": "2.0", "tensorrt": "10.3", "onnx": "1.17", "PIL": None},
    ),
    "trtexec": Facts(trtexec="/t", clock_offset_s=-99.0),
    "bare python and trtexec": Facts(python="python3", python_version="3.11.2", versions={"numpy": "2.0"}, trtexec="/t"),
    "old": Facts(python_version="3.8.1", broken="it is old"),
}  # fmt: skip


def test_backends_that_a_remote_machine_needs(golden, models):
    address = parse("ssh://me@board").address
    found = {}
    for name, chosen in product(models(), (None, "openvino", "tensorrt")):
        found[f"{name} {chosen}"] = outcome(needed_backend, Path(name), chosen)
    for (name, facts), backend, builds in product(FACTS.items(), (None, "tensorrt", "onnxruntime", "torch"), (False, True)):
        suffices = outcome(trtexec_suffices, facts, {backend}, builds=builds)
        found[f"{name} {backend} {builds}"] = [suffices, outcome(check_backends, address, facts, [backend], builds=builds)]
    for (name, facts), version in product(FACTS.items(), (None, "10.3.0")):
        capabilities = Capabilities(facts, None, version)
        lacks = _remote_lacks(address, capabilities)
        whole = replace(capabilities, lacks=lacks)
        found[f"lacks {name} {version}"] = [[lack.blocks for lack in lacks], whole.usable, whole.can, whole.backends]
    golden("targets/remote", as_json(found))


def test_what_blocks_and_what_does_not():
    assert Lack("a", "b").blocks
    assert not Capabilities(FACTS["runtime"], lacks=(Lack("a", "b"),)).usable
    assert Capabilities(FACTS["runtime"], lacks=(Lack("a", "b", blocks=False),)).can == ("profile", "validate", "build")
    assert set(Capabilities(FACTS["runtime"]).to_dict()) >= {"usable", "can", "board", "trtexec", "free_mib", "lacks"}


def test_checks_of_requests():
    build = BuildRequest("m.onnx", "onnxruntime", "o")
    for target, request, words in (
        (CpuTarget(), ProfileRequest(("a",), power_mode="15W"), "--power-mode"),
        (GpuTarget(), build, "gpu:0"),
    ):
        with refusing(InputError, words):
            target.check(request)
    CpuTarget().check(build)
    parse("jetson").check(ProfileRequest(("a",), power_mode="15W"))
    assert [parse(name).is_remote for name in ("cpu", "gpu", "jetson", "ssh://a")] == [False, False, False, True]
    assert [parse(name).builds for name in ("cpu", "gpu", "jetson", "ssh://a")] == [True, False, True, True]
    assert [parse(name).has_power_modes for name in ("cpu", "gpu", "jetson", "ssh://a")] == [False, False, True, True]
    assert parse("ssh://me@a:22/gpu:1").processor.name == "ssh://me@a:22/cpu"


def test_engines_are_sent_with_the_shapes_that_they_take(golden, monkeypatch):
    monkeypatch.setattr(by_trtexec, "send", lambda connection, blob: "remote")
    spec = {"name": "images", "dtype": "float32", "shape": ["batch", 3, 8, 8]}
    details = {
        "range": {"tensorrt": {"batches": [1, 4, 8], "input": spec}},
        "range without input": {"tensorrt": {"batches": [1, 4, 8]}},
        "one batch": {"tensorrt": {"batches": [4, 4, 4], "input": spec}, "batch": 4},
        "fixed": {"tensorrt": {"batches": None, "input": {**spec, "shape": [2, 3, 8, 8]}, "dla_core": 1}},
        "nothing": {},
    }
    found = {}
    for (name, own), scenario, batch in product(details.items(), ("single-stream", "offline"), (None, 1, 2, 4, 9)):
        path = Path("net.engine")
        path.write_bytes(b"bytes")
        write_manifest(path, Manifest("engine", "", "int8", "tensorrt", details=own))
        request = ProfileRequest(("net.engine",), scenario=scenario, batch=batch)
        found[f"{name} {scenario} {batch}"] = outcome(_send_engine, SimpleNamespace(connection=None), request, path)
    for manifest in (None, Manifest("engine", "", "int8", "tensorrt-rtx")):
        Path("net.engine.manifest.json").unlink()
        if manifest is not None:
            write_manifest(path, manifest)
        else:
            with refusing(InputError, "net.engine"):
                _send_engine(SimpleNamespace(connection=None), request, path)
            write_manifest(path, Manifest("engine", "", "int8", "tensorrt"))
    with refusing(InputError, "net.engine"):
        _send_engine(SimpleNamespace(connection=None), request, path)
    golden("targets/engines", as_json(found))


def test_samples_of_trtexec_as_raw_ones():
    samples = np.array([1.5, 2.5, 3.5])
    result = LatencyResult(
        "net.engine", "tensorrt", "int8", "jetson", "single-stream", 1, summarize([samples]), 1.0, 3, 1.0, 0.0, 0.0, True, (),
        tuple(samples), {}, block_calls=(2, 1),
    )  # fmt: skip
    raw = _raw(result)
    assert (raw.name, raw.builds, raw.calls_ns.tolist()) == ("net.engine", ("net.engine",), [1_500_000, 2_500_000, 3_500_000])
    assert [block.tolist() for block in raw.blocks_ms()] == [[1.5, 2.5], [3.5]]
    assert (raw.block_build.tolist(), raw.windows_ns.shape, len(raw.warmup_ms), len(raw.warmup_build)) == ([0, 0], (2, 2), 0, 0)


@pytest.mark.parametrize(
    ("sources", "idle_s"), [([], 0.0), ([CpuFrequencySource()], 0.0), ([CpuFrequencySource(), NvmlSource("0000:01:00.0")], 1.0)]
)
def test_a_second_of_rest_is_measured_where_there_is_a_power_meter(sources, idle_s):
    assert local._telemetry(sources)._idle_s == idle_s


def test_groups_of_artifacts():
    Path("a+b").write_bytes(b"")
    named = split_artifacts(["onnxruntime=x+y", "a+b", "z"])
    assert named.artifacts == ("onnxruntime=x", "onnxruntime=y", "a+b", "z")
    assert named.groups == {"x": "x+y", "y": "x+y"}
    for wrong in (["x+"], ["x+y", "x"], ["x+y", "onnxruntime=x"]):
        with refusing(InputError, "x"):
            split_artifacts(wrong)
    specs = [
        RunnerSpec(f"{backend} {path}", artifact=path, backend=backend)
        for path, backend in (("x", "p"), ("x", "q"), ("y", "p"), ("z", "p"))
    ]
    assert [spec.group for spec in grouped(specs, named)] == ["p=x+y", "q=x+y", "x+y", ""]


def test_values_of_tuned_settings():
    spec = RunnerSpec("a", kwargs={"threads": 2, "settings": {"kept": 1}}, precision="int8")
    assert with_values(spec, {}) == spec
    made = with_values(spec, {"threads": 4, "precision": "bf16", "pace": "quick", "batch": 8})
    assert made.kwargs == {"threads": 4, "precision": "bf16", "settings": {"kept": 1, "pace": "quick"}, "batch": 8}
    assert (made.precision, made.batch) == ("bf16", 8)
    assert with_values(spec, {"precision": "f32"}).precision == "int8"


@pytest.mark.parametrize(
    ("bits", "sets", "backend", "noted"),
    [
        (8, ("avx2",), "openvino", 1),
        (7, ("avx2",), "openvino", 0),
        (8, ("avx2", "avx512_vnni"), "openvino", 0),
        (8, ("avx2",), "onnxruntime", 0),
    ],
)
def test_weights_that_saturate_are_noted_once(monkeypatch, models, bits, sets, backend, noted):
    models()
    monkeypatch.setattr(_machine, "cpu_info", lambda: CpuInfo("a processor", "x86_64", 2, 2, sets))
    write_manifest(Path("plain.onnx"), Manifest("onnx", "", "int8", details={"weight_bits": bits}))
    Path("plain.onnx").write_bytes(b"changed since")  # what the worker refuses
    specs = [RunnerSpec(name, artifact="plain.onnx", backend=backend) for name in ("a", "b")]
    assert len(run_notes(specs, CandidateOptions())) == noted


def test_a_shipment_has_each_file_once_and_puts_local_names_back(models):
    models()
    files = Shipment()
    remote = files.add("plain.onnx")
    assert (remote, files.add("plain.onnx"), files.add("ov.onnx")) == ("@0/plain.onnx", "@0/plain.onnx", "@1/ov.onnx")
    assert set(files.blobs) == {
        f"@{n}/{name}{end}" for n, name in ((0, "plain.onnx"), (1, "ov.onnx")) for end in ("", ".manifest.json")
    }
    assert files.local({remote: [f"{remote}: bad", 3, ("@1/ov.onnx",)], "x": None}) == {
        "plain.onnx": ["plain.onnx: bad", 3, ["ov.onnx"]], "x": None,
    }  # fmt: skip
    assert files.add_all(["onnxruntime=plain.onnx+ov.onnx", "net.engine"]) == (
        "onnxruntime=@0/plain.onnx+@1/ov.onnx",
        "@2/net.engine",
    )
    with refusing(InputError, "absent.onnx"):
        files.add("absent.onnx")


def test_named_machines_as_text(monkeypatch):
    machine = Machine("board", "ssh://me@board/gpu:0", "15W", 'a "note"')
    assert machine.to_dict() == {
        "name": "board", "target": "ssh://me@board/gpu:0", "host": "me@board", "kind": "gpu:0", "power_mode": "15W",
        "notes": 'a "note"',
    }  # fmt: skip
    assert machine.to_toml() == '[board]\ntarget = "ssh://me@board/gpu:0"\npower_mode = "15W"\nnotes = "a \\"note\\""\n'
    assert Machine("own", "cpu").to_dict()["kind"] == "cpu"
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", "")
    for base, expected in (("/config", Path("/config")), ("relative", Path.home() / ".config"), ("", Path.home() / ".config")):
        monkeypatch.setenv("XDG_CONFIG_HOME", base)
        assert devices_file() == expected / "emca-deploy" / "devices.toml"


@pytest.mark.parametrize(("target", "power_mode", "lacks"), [("jetson", None, 1), ("cpu", "15W", 1), ("cpu", None, 0)])
def test_a_machine_that_is_no_jetson_board_lacks_one_where_it_matters(monkeypatch, target, power_mode, lacks):
    monkeypatch.setattr("emca_deploy.targets.capabilities.detect", lambda: None)
    assert len(Machine("own", target, power_mode).examine().lacks) == lacks


def test_logits_requests_are_of_one_artifact(models):
    models()
    specs, options = local.candidates_of(CpuTarget(), LogitsRequest("onnxruntime=plain.onnx", "data.zip", threads=3))
    assert [(spec.backend, spec.kwargs["threads"]) for spec in specs] == [("onnxruntime", 3)]
    assert options.batch is None
    (spec,), _ = local.candidates_of(CpuTarget(), LogitsRequest("plain.onnx", "data.zip", backend="openvino"))
    assert spec.backend == "openvino"
    specs, options = local.candidates_of(CpuTarget(), ProfileRequest(("plain.onnx",), scenario="offline"))
    assert (options.batch, options.scenario, options.batch_chosen) == (8, "offline", False)
    assert TensorSpec("x", "float32", (1,)).shape == (1,)
    for target in (CpuTarget(), GpuTarget()):
        with refusing(InputError, "missing.onnx"):  # before another target runs
            target.notes(LogitsRequest("missing.onnx", "data.zip"))
