"""Export of a torch module to an ONNX model through torch.export, with readable names: `stage2.block0.conv1`."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emca_deploy._optional import import_optional
from emca_deploy._version import __version__
from emca_deploy.errors import ModelError
from emca_deploy.preprocessing import Size, sides

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

__all__ = ["OPSET", "check_operators", "export_onnx", "simplify"]

OPSET = 20
"""Newest opset that ONNX Runtime, OpenVINO and TensorRT 10 all read without conversion."""

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

FORBIDDEN_OPERATORS = frozenset(
    {"Shape", "Gather", "If", "Loop", "BatchNormalization", "Expand", "Tile", "Unsqueeze", "Constant"}
)
"""Operators that no export has: shape computations, unfolded batch norm, unfolded constants."""

FOLD_LIMIT_BYTES = 2**30

SCOPES = "pkg.torch.onnx.name_scopes"

# The released PKCAM code numbers its layers; these patterns give them the names of our own networks.
_RENAMES = (
    (re.compile(r"^pre\.0\b"), "stem.conv"),
    (re.compile(r"^pre\b"), "stem"),
    (re.compile(r"^(stage\d)\.(\d+)\b"), r"\1.block\2"),
    (re.compile(r"\.shortcut\.0\b"), ".shortcut.conv"),
    (re.compile(r"^linear\b"), "head"),
)
_RESIDUAL_INDEX = re.compile(r"\.residual\.(\d+)")


def export_onnx(module: "nn.Module", image_size: Size, batch: int | None = None, opset: int = OPSET) -> "ir.Model":
    """Return a module as an ONNX model: batch norm and constants folded, nodes named after modules, no shape computations.

    The module maps (N, 3, H, W) float32 to logits (N, classes); N is `batch`, or dynamic where that is None.

    Raises:
        MissingError: torch or onnxscript is not installed.
        ModelError: the exporter refuses the module or the opset, or leaves forbidden nodes.
    """
    model = _traced(module.eval(), image_size, batch, opset)
    simplify(model)
    _name_graph(model)
    check_operators(model)
    model.producer_name, model.producer_version = "emca-deploy", __version__
    return model


def _traced(module: "nn.Module", image_size: Size, batch: int | None, opset: int) -> "ir.Model":
    from onnx.defs import onnx_opset_version

    unwritable = ModelError(f"--opset {opset}: the exporter cannot write it", f"leave it out for {OPSET}")
    if opset > onnx_opset_version():
        raise unwritable
    torch = import_optional("torch")
    import_optional("onnxscript")
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    try:
        # Two images, because torch.export would make a batch of one constant.
        example = torch.zeros(batch or 2, 3, *sides(image_size))
        with _quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as exc:
        first_line = str(exc).strip().splitlines()[0]
        remedy = "try a smaller --batch or --image-size, or another --opset"
        raise ModelError(f"the exporter refuses this model: {first_line}", remedy) from exc
    model: ir.Model = program.model
    if model.opset_imports.get("") != opset:  # where the exporter cannot convert, it only logs that
        raise unwritable
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's logs about torchvision, which is not needed, and about converting opsets."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def simplify(model: "ir.Model") -> None:
    """Clean a freshly exported model in place."""
    from onnx_ir.passes import common

    from emca_deploy.canonical.pooling import pool_globally

    # The exporter folds small constants only; SE's weights, reshaped for 1x1 convolutions, are larger.
    import_optional("onnxscript.optimizer").fold_constants(
        model, input_size_limit=FOLD_LIMIT_BYTES, output_size_limit=FOLD_LIMIT_BYTES
    )
    pool_globally(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def check_operators(model: "ir.Model") -> None:
    """Refuse a model with any forbidden operator.

    Raises:
        ModelError: the model has one, which the error names.
    """
    found = sorted({node.op_type for node in model.graph} & FORBIDDEN_OPERATORS)
    if found:
        raise ModelError(
            f"the exported model still has {', '.join(found)} nodes", "report this with the architecture and versions"
        )


def _readable(path: str) -> str:
    for pattern, replacement in _RENAMES:
        path = pattern.sub(replacement, path)
    # residual.0, .3 and .6 are convolutions, each followed by batch norm and ReLU
    return _RESIDUAL_INDEX.sub(lambda match: f".conv{int(match[1]) // 3 + 1}", path)


def _base_name(node: "ir.Node") -> str:
    weight = node.inputs[1] if node.op_type in {"Conv", "Gemm"} else None
    if weight is not None and weight.name and weight.name.endswith(".weight"):
        return _readable(weight.name.removesuffix(".weight"))
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get(SCOPES, ""))[:-1]  # dotted paths of torch modules, outer first
    path = next((scope for scope in reversed(scopes) if not scope.startswith("_native_batch_norm")), "")
    if not path and node.inputs and node.inputs[0] is not None and (producer := node.inputs[0].producer()):
        path = (producer.name or "").rpartition(".")[0]  # a pooling at the top belongs to the block whose output it pools
    operation = "pool" if node.op_type in {"GlobalAveragePool", "MaxPool"} else node.op_type.lower()
    path = _readable(path)
    return f"{path}.{operation}" if path and not path.endswith(f".{operation}") else path or operation


def _name_graph(model: "ir.Model") -> None:
    """Name every node after its module, every tensor after its node, and every constant after its first reader.

    The graph's inputs and outputs keep their names. The exporter's metadata, which has source paths of this machine, is removed.
    """
    graph = model.graph
    outputs = set(graph.outputs)
    seen: Counter[str] = Counter()
    for node in graph:
        base = _base_name(node)
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base] - 1}"
        for value in node.outputs:
            if value not in outputs:
                value.name = node.name
            value.metadata_props.clear()
    taken: set[str] = set()
    for node in graph:
        _name_constants(node, taken)
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    model.metadata_props.clear()


_ROLES = {"Conv": ("", "weight", "bias"), "Gemm": ("", "weight", "bias"), "Reshape": ("", "shape"), "ReduceSum": ("", "axes")}


def _name_constants(node: "ir.Node", taken: set[str]) -> None:
    roles = _ROLES.get(node.op_type, ())
    for index, value in enumerate(node.inputs):
        if value is None or not value.is_initializer() or value.name in taken:
            continue
        role = roles[index] if index < len(roles) and roles[index] else f"constant{index}"
        value.metadata_props.clear()
        value.name = f"{node.name}.{role}"
        taken.add(value.name)
