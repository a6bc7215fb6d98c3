"""Every parser of foreign files and texts, with valid inputs to damage."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_seeds import (
    DLA_LOG,
    LAYER_INFO,
    LAYERS,
    ORT_PROFILE,
    PLAN,
    PROFILE,
    RESULTS,
    ROOT,
    SSH,
    TIMES,
    TOML,
    TRTEXEC_LOG,
    network,
    npz,
    old,
    recorded,
    torch_zip,
)

__all__ = ["Target", "targets"]


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: Name of the parser.
        kind: Kind of damage, a name in `fuzz_inputs.MUTATIONS`.
        seeds: Valid inputs.
        parse: Function that takes the bytes of an input.
        allowed: Exceptions that it may raise, as its docstring says, other than our errors.
    """

    name: str
    kind: str
    seeds: tuple[bytes, ...]
    parse: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()


DOCUMENT = (KeyError, TypeError, ValueError, RecursionError)
"""Exceptions in the docstrings of `from_dict` and `json.loads`."""


def targets(folder: Path) -> list[Target]:
    """Return all parsers; `folder` holds the inputs that are read from a file."""
    return [*_texts(), *_documents(folder), *_archives(folder), *_models(folder), *_images()]


def _file(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Turn a parser of files into a parser of bytes."""

    def parse(data: bytes) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return parse


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def _texts() -> list[Target]:
    from emca_deploy.backends.onnxruntime.layers import read_ort_profile
    from emca_deploy.backends.tensorrt.dla_log import place_nodes, read_placement
    from emca_deploy.backends.tensorrt.inspect import read_layers
    from emca_deploy.backends.tensorrt.tool import exports
    from emca_deploy.backends.tensorrt.tool.log import read_log
    from emca_deploy.machines.jetson.clocks import parse_show
    from emca_deploy.machines.jetson.modes import parse_modes, parse_query
    from emca_deploy.remote.address import parse_address
    from emca_deploy.remote.errors import failure
    from emca_deploy.results.requirements import parse_requirements
    from emca_deploy.telemetry.tegrastats import parse_line

    samples = (ROOT / "tests/unit/telemetry/tegrastats_samples.txt").read_text().splitlines()
    lines = tuple(line.encode() for line in samples if line and not line.startswith("#"))
    nodes = [f"conv{index}" for index in range(12)] + [f"relu{index}" for index in range(12)]

    def placed(text: str) -> object:
        found = read_placement(text.splitlines())
        return found and (place_nodes(found, nodes), found.to_dict(nodes, dict.fromkeys(nodes, 3)))

    there = parse_address("ssh://box")
    query = b"NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n"
    return [
        Target("tegrastats", "text", lines, _text(parse_line)),
        Target("nvpmodel -q", "text", (query,), _text(parse_query)),
        Target("nvpmodel.conf", "text", recorded("nvpmodel.conf"), _text(parse_modes)),
        Target("jetson_clocks", "text", recorded("jetson_clocks"), _text(parse_show)),
        Target("trtexec log", "text", (TRTEXEC_LOG,), _text(read_log)),
        Target("trtexec times", "text", (TIMES,), _text(lambda text: exports.read_times(text, "x"))),
        Target("trtexec profile", "text", (PROFILE,), _text(lambda text: exports.read_profile(text, "x"))),
        Target("trtexec layers", "json", (LAYER_INFO,), _text(lambda text: exports.read_layer_info(text, "x"))),
        Target("builder's DLA log", "text", (DLA_LOG,), _text(placed)),
        Target("builder's layers", "text", (LAYERS,), _text(lambda text: read_layers(text.splitlines()))),
        Target("ONNX Runtime profile", "json", (ORT_PROFILE,), _text(lambda text: read_ort_profile(text, "x"))),
        Target("ssh's complaints", "text", (SSH,), _text(lambda text: failure(there, text))),
        Target("requirements", "text", (b"drop<=0.2, p99<=8ms, size>=.5e1MiB",), _text(lambda text: parse_requirements([text]))),
        Target("ssh address", "text", (b"ssh://me@host.example:2222/gpu:1",), _text(parse_address)),
    ]


def _gated(folder: Path) -> Callable[[Path], object]:
    """Return what decides about each figure of a result, keeps the result in a history, and shows it."""
    from emca_deploy.api.gate import GateRequest, gate
    from emca_deploy.api.history import add_history, history
    from emca_deploy.errors import EmcaError
    from emca_deploy.results.codec import to_json
    from emca_deploy.results.requirements import FIGURES

    def gated(path: Path) -> object:
        store = folder / "history.db"
        store.unlink(missing_ok=True)
        for name, figure in FIGURES.items():
            with suppress(EmcaError):
                report = gate(GateRequest((path,), (f"{name}<=1{figure.unit}",), store=store))
                json.dumps(to_json(report), allow_nan=False)
        add_history([path], store)
        return [json.dumps(to_json(history(name, store=store)), allow_nan=False) for name in FIGURES if name != "slowdown"]

    return gated


def _result(cls: Any) -> Callable[[bytes], object]:
    from emca_deploy.results.codec import from_json

    return lambda data: from_json(cls, json.loads(data))


def _documents(folder: Path) -> list[Target]:
    from emca_deploy.api.sweeping.plan_file import read_plan_file
    from emca_deploy.artifacts import Manifest, Preprocessing, read_manifest
    from emca_deploy.backends.tensorrt.cache import check_cache
    from emca_deploy.calibration.ranges.histogram import Histogram
    from emca_deploy.calibration.ranges.observers import Observation, TensorRange
    from emca_deploy.calibration.ranges.table import RangeTable, TableKey, read_table, write_table
    from emca_deploy.calibration.resume import SideFile
    from emca_deploy.data.label_files import LabelFile, read_class_map
    from emca_deploy.data.preprocessing_files import read_preprocessing_file
    from emca_deploy.harness.measure.comparing import Measured, compare_runs
    from emca_deploy.reporting.html import render_html
    from emca_deploy.results.accuracy import AccuracyReport
    from emca_deploy.results.codec import to_json
    from emca_deploy.results.deploy import read_deploy_report
    from emca_deploy.results.layers import LayersReport
    from emca_deploy.results.sensitivity import SensitivityReport
    from emca_deploy.results.sweep import SweepReport, read_cell, row_of
    from emca_deploy.results.tuning import TuneReport
    from emca_deploy.targets.named_machines import read_machines

    engine = Manifest(
        "engine", "0" * 64, "int8", "openvino", preprocessing=Preprocessing(), details={"machine": {}, "threads": 1}
    )
    manifest = json.dumps(to_json(engine)).encode()
    ranges = {"a": TensorRange(-1.0, 2.0), "b": TensorRange(0.0, 1.0, 0.5)}
    seen = {name: Observation(-1.0, 2.0, Histogram.of(np.linspace(-1, 2, 99, dtype=np.float32))) for name in ranges}
    table = folder / "seed.json"
    write_table(table, RangeTable(TableKey("0" * 64, "0" * 64, Preprocessing(), "minmax", 1, 0), ranges, seen))
    (folder / "m.onnx").write_bytes(b"x")
    os.environ["EMCA_DEPLOY_DEVICES"] = str(folder / "devices.toml")

    def own_manifest(_: Path) -> object:
        return read_manifest(folder / "m.onnx", verify=False)

    def drawn(path: Path) -> object:
        return render_html(read_deploy_report(path))

    def compared(path: Path) -> object:
        one = Measured.read(path)
        return compare_runs(one, one)

    half = [0.5, 0.5, 0.5]
    timm = {"input_size": [3, 224, 224], "interpolation": "bicubic", "mean": half, "std": half, "crop_pct": 0.9}
    face = {"do_resize": True, "size": {"shortest_edge": 224}, "image_mean": half, "image_std": half, "resample": 3}
    configs = (json.dumps(timm).encode(), json.dumps(face).encode(), manifest)
    cache = b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\nconv1: 3d010a14\n"
    side = b'{"side_version": 1, "key": {"a": 1}, "found": {"x": 1}}'
    labels = (b"a/1.png 0\na/2.png 1\n", b"filename,label\n1.png,cat\n2.png,dog\n", b"ILSVRC2012_val_00000001 n01440764\n")
    maps = (b"cat 0\ndog 1\n", b'{"0": "cat", "1": ["n01", "dog"]}', b"cat\ndog\n")
    deployed = tuple((RESULTS / name).read_bytes() for name in ("deploy-v1.json", "deploy-v2.json"))
    profiled = tuple((RESULTS / name).read_bytes() for name in ("profile-v1.json", "profile-v2.json"))
    validated = (old("validate"), old("validate-detection"))
    return [
        Target(
            "manifest",
            "json",
            (manifest,),
            _file(folder, "m.onnx.manifest.json", own_manifest),
        ),
        Target("range table", "json", (table.read_bytes(),), _file(folder, "t.json", read_table)),
        Target("side file", "json", (side,), _file(folder, "s.json", lambda path: SideFile(path, {"a": 1}))),
        Target("deploy's result.json", "json", deployed, _file(folder, "result.json", drawn)),
        Target("profile's JSON", "json", profiled, _file(folder, "p.json", compared)),
        Target("gate's results", "json", (*deployed, *profiled, *validated), _file(folder, "g.json", _gated(folder))),
        Target("tune's JSON", "json", (old("tune"),), _result(TuneReport), DOCUMENT),
        Target("layers' JSON", "json", (old("layers"),), _result(LayersReport), DOCUMENT),
        Target("sensitivity's JSON", "json", (old("sensitivity"),), _result(SensitivityReport), DOCUMENT),
        Target("validate's JSON", "json", (old("validate"),), _result(AccuracyReport), DOCUMENT),
        Target("devices.toml", "text", (TOML,), _file(folder, "devices.toml", lambda path: read_machines())),
        Target("plan of a sweep", "text", (PLAN,), _file(folder, "plan.toml", read_plan_file)),
        Target("sweep's JSON", "json", (old("sweep"),), _result(SweepReport), DOCUMENT),
        Target("cell of a sweep", "json", (old("sweep-cell"),), _file(folder, "cell.json", lambda path: row_of(read_cell(path)))),
        Target("preprocessing file", "json", configs, _file(folder, "config.json", read_preprocessing_file)),
        Target("label file", "text", labels, _file(folder, "labels.csv", lambda path: LabelFile(path).classes(("a/1.png",)))),
        Target("class map", "text", maps, _file(folder, "map.txt", read_class_map)),
        Target("calibration cache", "text", (cache,), _file(folder, "x.cache", lambda path: check_cache(path, "8.6.1"))),
    ]


def _archives(folder: Path) -> list[Target]:
    from PIL import Image

    from emca_deploy.artifacts import Preprocessing
    from emca_deploy.bundles.canonical_zip import read_archive, write_archive
    from emca_deploy.calibration.recovery.weights import _read as read_weights
    from emca_deploy.data.sources import open_source
    from emca_deploy.data.streams import jpeg_frames
    from emca_deploy.harness.accuracy.logits_store import LogitsStore
    from emca_deploy.harness.measure.raw_samples import RawCandidate, RawSamples, read_raw, save_raw

    images = npz(images=np.zeros((4, 3, 32, 32), np.float32), labels=np.arange(4))
    pixels = npz(images=np.zeros((4, 32, 32, 3), np.uint8))
    many = np.arange(4, dtype=np.int64)
    raw = RawCandidate(
        "a", ("m",), many + 1, np.array([4]), np.array([0]), np.zeros((1, 2), np.int64), np.ones(1), np.zeros(1, np.int64)
    )
    save_raw(folder / "raw.npz", RawSamples((raw,), {"scenario": "x"}))
    key = json.dumps({"a": 1})
    names = np.array(("a", "b"), np.str_)
    logits = npz(logits=np.zeros((2, 3), np.float32), key=np.array(key), files=names, classes=np.array((), np.str_))
    partial = json.dumps({"version": 1, "key": {"a": 1}}).encode() + b"\n" + struct.pack("<QIII", 0, 1, 2, 0) + bytes(8)
    weights = npz(**{"w/int8": np.zeros((2, 2), np.int8), "w/scale": np.ones(2, np.float32), "label": np.array("x")})
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("a/1.png", "a/2.png", "b/1.png"):
            out.writestr(name, png.getvalue())

    def opened(path: Path) -> object:
        source = open_source(path, Preprocessing.for_size(32))
        return source.identity(), [images for images, _ in source.batches(2)]

    def kept(path: Path) -> object:
        with LogitsStore(path, {"a": 1}) as store:
            return store.kept()

    def resumed(path: Path) -> object:
        with LogitsStore(path.with_suffix(""), {"a": 1}) as store:
            return store.resume()

    with (folder / "m.emca").open("wb") as stream:
        (folder / "one.txt").write_text("one")
        write_archive(stream, {"one.txt": folder / "one.txt", "two.txt": folder / "one.txt"})
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")

    return [
        Target("archive of a bundle", "bytes", ((folder / "m.emca").read_bytes(),), _file(folder, "b.emca", read_archive)),
        Target("Motion JPEG", "bytes", (3 * jpeg.getvalue(),), lambda data: list(jpeg_frames(io.BytesIO(data).read))),
        Target("npz data set", "zip", (images, pixels), _file(folder, "d.npz", opened)),
        Target("zip data set", "zip", (archive.getvalue(),), _file(folder, "d.zip", opened)),
        Target("raw samples", "zip", ((folder / "raw.npz").read_bytes(),), _file(folder, "r.npz", read_raw)),
        Target("logits", "zip", (logits,), _file(folder, "l.npz", kept)),
        Target("partial logits", "bytes", (partial,), _file(folder, "q.npz.partial", resumed)),
        Target("rounded weights", "zip", (weights,), _file(folder, "w.npz", lambda path: read_weights(path, "x"))),
    ]


def _models(folder: Path) -> list[Target]:
    from emca_deploy.api.layer_times.graph import graph_of
    from emca_deploy.backends.tensorrt.model_facts import count_convolutions, read_facts
    from emca_deploy.calibration.graphs.graph import load_graph
    from emca_deploy.checkpoint_files.opening import open_checkpoint
    from emca_deploy.exporting.dla_convert import load_float_model
    from emca_deploy.onnx_file.file import OnnxFile

    def opened(path: Path) -> object:
        file = OnnxFile.open(path)
        return file.sha256, file.precision, file.image, file.find_logits(), file.pixel_range

    def planned(path: Path) -> object:
        return read_facts(path), count_convolutions(path)

    def listed(path: Path) -> object:
        with open_checkpoint(path) as found:
            return dict(found.tensors)

    legacy = pickle.dumps({"state_dict": {"a": 1, "b": [1, 2]}}, protocol=2)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    safe = struct.pack("<Q", len(header)) + header + bytes(8)
    model = (network(),)
    checkpoints = [Target("safetensors", "bytes", (safe,), _file(folder, "c.safetensors", listed))]
    zipped = torch_zip()
    if zipped is not None:
        checkpoints.append(Target("checkpoint", "zip", (zipped,), _file(folder, "c.pth", listed)))
    checkpoints.append(Target("pickle", "bytes", (legacy,), _file(folder, "d.pth", listed)))
    return [
        Target("ONNX file", "onnx", model, _file(folder, "a.onnx", opened)),
        Target("ONNX file for calibrate", "onnx", model, _file(folder, "e.onnx", load_graph)),
        Target("ONNX file for plan", "onnx", model, _file(folder, "b.onnx", planned)),
        Target("ONNX file for layers", "onnx", model, _file(folder, "c.onnx", lambda path: graph_of(path, 1))),
        Target("ONNX file for a DLA", "onnx", model, _file(folder, "d.onnx", load_float_model)),
        *checkpoints,
    ]


def _images() -> list[Target]:
    from PIL import Image

    from emca_deploy.artifacts import Preprocessing
    from emca_deploy.data.preprocess import decode, to_pixels

    seeds = []
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"):
        out = io.BytesIO()
        picture.save(out, form)
        seeds.append(out.getvalue())
    how = Preprocessing.for_size(16)
    return [Target("image", "bytes", tuple(seeds), lambda data: to_pixels(decode(io.BytesIO(data), "x", "apply"), how))]
