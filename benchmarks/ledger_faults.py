"""Twenty faults, each injected into an INT8 model, and the stage and the place that `validate --explain` names for them.

    python benchmarks/ledger_faults.py --model model.onnx --int8 model.int8.onnx --data val.zip -o ledger-faults.json

MODEL and INT8 are an fp32 model and what `calibrate --backend onnxruntime` made of it; DATA has images of it. The images are
tinted, so that the order of channels matters. Faults of the runtime are injected into the model that the engine runs, and not
into the file that is explained. Layers are drawn by `--seed`, again where a fault leaves the logits above 36 dB.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from PIL import Image

from emca_deploy._progress import Counter
from emca_deploy.calibration.graphs.graph import canonical_graph
from emca_deploy.calibration.ledger.finished import Finished
from emca_deploy.calibration.ledger.ledger import Ledger
from emca_deploy.canonical.edit import constant_of, insert_node, new_constant
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.tasks.logits import signal_to_noise_db

TINT = (1.0, 0.75, 0.5)


@dataclass(frozen=True)
class Fault:
    """A fault, the stage it belongs to and a change of the preprocessing, of the file, or of what the engine runs."""

    name: str
    stage: str
    steps: Callable[[Preprocessing], Preprocessing] | None = None
    edit: Callable[[ir.Graph, np.random.Generator], str] | None = None
    field: str = ""


def convolutions(graph: ir.Graph) -> list[ir.Node]:
    """Return the convolutions whose weights are integers."""
    return [n for n in graph if n.op_type == "Conv" and n.inputs[1].producer() is not None]


def drawn(graph: ir.Graph, random: np.random.Generator) -> ir.Node:
    layers = convolutions(graph)
    return layers[int(random.integers(1, len(layers)))]


def set_input(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    node.replace_input_with(index, new_constant(graph, f"{node.name}/fault{index}", array))


def weights(
    change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Callable[[ir.Graph, np.random.Generator], str]:
    """Return an edit of one layer's integers and scales."""

    def edit(graph: ir.Graph, random: np.random.Generator) -> str:
        layer = drawn(graph, random)
        stored = layer.inputs[1].producer()
        integers, scales = (constant_of(stored.inputs[index]) for index in (0, 1))
        integers, scales = change(integers.copy(), scales.copy())
        set_input(graph, stored, 0, integers)
        set_input(graph, stored, 1, scales.astype(np.float32))
        return str(layer.name)

    return edit


def rescaled(integers: np.ndarray, scales: np.ndarray, factors: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return integers for larger scales."""
    each = np.broadcast_to(np.asarray(factors, np.float64), scales.shape)
    shape = [-1] + [1] * (integers.ndim - 1)
    return np.clip(np.rint(integers / each.reshape(shape)), -127, 127).astype(np.int8), scales * each


def bad_bias(graph: ir.Graph, random: np.random.Generator) -> str:
    layer = drawn(graph, random)
    stored = layer.inputs[2].producer()
    if stored is None:
        bias = constant_of(layer.inputs[2])
        set_input(graph, layer, 2, (bias + random.normal(0, 1, bias.shape) * np.abs(bias).mean()).astype(np.float32))
    else:
        bias = constant_of(stored.inputs[0])
        set_input(graph, stored, 0, (bias + random.normal(0, 1, bias.shape) * np.abs(bias).mean()).astype(np.int32))
    return str(layer.name)


def named_like(old: ir.Node, new: ir.Node) -> None:
    """Give the result of a new node the name of an old node's."""
    before, after = old.outputs[0], new.outputs[0]
    after.name, before.name = before.name, f"{before.name}/before"
    after.shape, after.type = before.shape, ir.TensorType(ir.DataType.FLOAT)


def other_pool(graph: ir.Graph, random: np.random.Generator) -> str:
    """Let the stem take means in place of maxima."""
    node = next(node for node in graph if node.op_type == "MaxPool")
    kept = {name: node.attributes[name] for name in ("kernel_shape", "strides", "pads") if name in node.attributes}
    new = ir.Node("", "AveragePool", [node.inputs[0]], list(kept.values()), name=f"{node.name}/mean")
    named_like(node, new)
    graph.insert_after(node, new)
    ir.convenience.replace_all_uses_with(node.outputs[0], new.outputs[0])
    graph.remove(node, safe=True)
    return str(new.outputs[0].name)


def other_gate(graph: ir.Graph, random: np.random.Generator) -> str:
    gates = [node for node in graph if node.op_type in ("Sigmoid", "HardSigmoid")]
    node = gates[int(random.integers(len(gates)))]
    new = ir.node(
        "HardSigmoid" if node.op_type == "Sigmoid" else "Sigmoid",
        [node.inputs[0]],
        {"alpha": 0.2, "beta": 0.2},
        name=node.name + "/x",
    )
    named_like(node, new)
    graph.insert_after(node, new)
    ir.convenience.replace_all_uses_with(node.outputs[0], new.outputs[0])
    return str(new.outputs[0].name)


def pair(scale: float, zero: int | None = None) -> Callable[[ir.Graph, np.random.Generator], str]:
    """Return an edit of one activation's scale and zero point, in both operators of its pair."""

    def edit(graph: ir.Graph, random: np.random.Generator) -> str:
        quantizers = [node for node in graph if node.op_type == "QuantizeLinear" and node.inputs[0].producer() is not None]
        node = quantizers[int(random.integers(len(quantizers)))]
        readers = [use.node for use in node.outputs[0].uses() if use.node.op_type == "DequantizeLinear"]
        for each in (node, *readers):
            set_input(graph, each, 1, (constant_of(each.inputs[1]) * scale).astype(np.float32))
            if zero is not None:
                set_input(graph, each, 2, np.full_like(constant_of(each.inputs[2]), zero))
        return str(node.inputs[0].name)

    return edit


def half(factor: float) -> Callable[[ir.Graph, np.random.Generator], str]:
    """Return an edit that passes one activation through float16 at another magnitude; what overflows is cut."""

    def edit(graph: ir.Graph, random: np.random.Generator) -> str:
        layer = drawn(graph, random)
        value = layer.outputs[0]
        uses = list(value.uses())
        before = uses[0].node
        name = f"{layer.name}/half"
        scaled = insert_node(
            graph, before, "Mul", [value, new_constant(graph, f"{name}/k", np.float32([factor]))], f"{name}/up", value
        )
        narrow = insert_node(graph, before, "Cast", [scaled], f"{name}/narrow", value, attributes={"to": 10})
        narrow.type = ir.TensorType(ir.DataType.FLOAT16)
        wide = insert_node(graph, before, "Cast", [narrow], f"{name}/wide", value, attributes={"to": 1})
        infinite = insert_node(graph, before, "IsInf", [wide], f"{name}/infinite", value)
        infinite.type = ir.TensorType(ir.DataType.BOOL)
        largest = new_constant(graph, f"{name}/largest", np.float32(65504))
        wide = insert_node(graph, before, "Where", [infinite, largest, wide], f"{name}/finite", value)
        down = insert_node(
            graph, before, "Mul", [wide, new_constant(graph, f"{name}/d", np.float32([1 / factor]))], f"{name}/down", value
        )
        for use in uses:
            use.node.replace_input_with(use.idx, down)
        return str(layer.name) + "/half"

    return edit


def shifted_result(graph: ir.Graph, random: np.random.Generator) -> str:
    """Let one DequantizeLinear of an activation use a scale 10 % too large: a kernel's own constant is wrong."""
    readers = [node for node in graph if node.op_type == "DequantizeLinear" and constant_of(node.inputs[0]) is None]
    node = readers[int(random.integers(len(readers)))]
    set_input(graph, node, 1, (constant_of(node.inputs[1]) * 1.1).astype(np.float32))
    return str(node.outputs[0].name)


FAULTS = (
    Fault("BGR for RGB", "preprocessing", lambda used: replace(used, channels="bgr"), field="channels"),
    Fault("wrong mean", "preprocessing", lambda used: replace(used, mean=(0.485, 0.456, 0.406)), field="mean"),
    Fault("wrong standard deviation", "preprocessing", lambda used: replace(used, std=(0.2, 0.2, 0.2)), field="std"),
    Fault("nearest for bilinear", "preprocessing", lambda used: replace(used, interpolation="nearest"), field="interpolation"),
    Fault("a crop", "preprocessing", lambda used: replace(used, resize="shortest", resize_size=80), field="resize"),
    Fault("a bad bias", "graph", edit=bad_bias),
    Fault("a bad fold", "graph", edit=weights(lambda q, s: (q, s * np.random.default_rng(0).uniform(0.5, 1.5, s.shape)))),
    Fault("output channels reversed", "graph", edit=weights(lambda q, s: (q[::-1], s[::-1]))),
    Fault("another pooling", "graph", edit=other_pool),
    Fault("another gate", "graph", edit=other_gate),
    Fault("weights of 3 bits", "weights", edit=weights(lambda q, s: rescaled(q, s, 42.0))),
    Fault("one scale for all channels, too large", "weights", edit=weights(lambda q, s: rescaled(q, s, 25 * s.max() / s))),
    Fault("a clipped tensor", "clipping", edit=pair(0.1)),
    Fault("a tensor clipped harder", "clipping", edit=pair(0.04)),
    Fault("a range too wide", "rounding", edit=pair(40.0)),
    Fault("a range much too wide", "rounding", edit=pair(80.0)),
    Fault("fp16 overflow", "fp16", edit=half(65504 / 0.7)),
    Fault("fp16 underflow", "fp16", edit=half(2e-8)),
    Fault("a runtime that clips a tensor", "runtime", edit=pair(0.1)),
    Fault("a runtime with a wrong scale", "runtime", edit=shifted_result),
)  # fmt: skip


def tinted(data: Path, used: Preprocessing, count: int, folder: Path) -> Path:
    """Write some images of a data set in colour."""
    source = open_source(data, replace(used, mean=(0.0,) * 3, std=(1.0,) * 3))
    indices = [position * len(source) // count for position in range(count)]
    number = 0
    for images, _ in source.batches(16, indices):
        for image in images:
            pixels = np.clip(image * 255 * np.reshape(TINT, (3, 1, 1)), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels).resize((75, 75)).save(folder / f"{number:05d}.png")
            number += 1
    return folder


def run(content: bytes | str, source: ImageSource, indices: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, quiet(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images})[0] for images, _ in source.batches(8, indices)])


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    return options


def explain(fault: Fault, given: argparse.Namespace, data: Path, folder: Path, random: np.random.Generator) -> dict[str, object]:
    """Inject a fault, and return what the ledger names."""
    used = preprocessing_of_file(given.model, PreprocessingOptions())
    own = used if fault.steps is None else fault.steps(used)
    of_reference, of_artifact = open_source(data, used), open_source(data, own)
    indices = list(range(len(of_reference)))
    canonical = canonical_graph(given.model, used)
    path, wanted, reference = given.int8, fault.field, run(str(given.model), of_reference, indices)
    while True:
        engine, state = ir.load(given.int8), random.bit_generator.state
        wanted = fault.field if fault.edit is None else fault.edit(engine.graph, random)
        answers = run(ir.to_proto(engine).SerializeToString(), of_artifact, indices)
        if signal_to_noise_db(reference, answers) < 36:
            break
    if fault.edit is not None and fault.stage != "runtime":
        path = folder / "fault.onnx"
        ir.save(engine, path)

    def watched(model: ir.Model, few: object) -> np.ndarray:
        if fault.stage == "runtime":
            again = np.random.default_rng()
            again.bit_generator.state = state
            fault.edit(model.graph, again)
        return run(ir.to_proto(model).SerializeToString(), of_artifact, list(few))

    finished = Finished.open(path, canonical.model.graph, None)
    ledger = Ledger(canonical.model, finished, of_reference, of_artifact, of_artifact, 2).with_foreign_biases(indices)
    found = ledger.measure(indices, (reference, answers), None, Counter(None, len(indices)))
    found = ledger.locate(found, indices, watched, Counter(None, len(found.stages)))
    stage = next(each for each in found.stages if each.name == found.largest)
    return {
        "fault": fault.name,
        "stage": fault.stage,
        "place": wanted,
        "named_stage": stage.name,
        "named_place": stage.place,
        "share_percent": stage.share_percent,
        "interaction_percent": found.interaction_percent,
        "sqnr_db": found.sqnr_db,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--int8", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        data = tinted(given.data, preprocessing_of_file(given.model, PreprocessingOptions()), given.images, folder / "images")
        for number, fault in enumerate(FAULTS):
            if given.only not in fault.name:
                continue
            results.append(explain(fault, given, data, folder, np.random.default_rng([given.seed, number])))
            print(json.dumps(results[-1]), flush=True)
    right = sum(result["stage"] == result["named_stage"] for result in results)
    places = sum(result["place"] in str(result["named_place"]) for result in results)
    small = sum(abs(result["interaction_percent"]) < 20 for result in results)
    print(f"{right} of {len(results)} stages right, {places} places, {small} interactions below 20%")
    if given.output is not None:
        given.output.write_text(json.dumps({"seed": given.seed, "images": given.images, "faults": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
