"""A model as a server runs it, and what a layout is."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest, TensorSpec
from emca_deploy.bundles.contents import Contents
from emca_deploy.bundles.templating import environment
from emca_deploy.errors import BundleError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.header import dtype_name
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.bundle import BundleVariant

__all__ = ["Layout", "Served", "rendered", "served_model"]

CHANNELS = (1, 3)
LONGEST_NAME = 50
"""KServe adds to a name, and Kubernetes takes 63 characters."""


@dataclass(frozen=True)
class Served:
    """A model as a server runs it.

    Attributes:
        name: Name in requests: lower-case letters, digits and "-".
        variant: The artifact.
        library: Backend that the server runs it with.
        manifest: Its manifest.
        files: Path of each file of the model by its name next to the model; the first one is the model.
        inputs: Its inputs; a size that is a string is dynamic.
        outputs: Its outputs; empty where an engine does not list them.
        channels_last: Whether its input is (N, H, W, C).
        values: Tuned settings of its backend; empty where nothing was tuned.
        tuned_batch: Fastest number of images per call; None where it was not tuned.
        classes: Names of the classes; empty where nobody stated them.
        licence: Licence of the checkpoint; None where nobody stated it.
        preprocessing: How an image becomes the input; None where unknown.
    """

    name: str
    variant: BundleVariant
    library: str
    manifest: Manifest
    files: Mapping[str, Path]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    channels_last: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    tuned_batch: int | None = None
    classes: tuple[str, ...] = ()
    licence: str | None = None
    preprocessing: Preprocessing | None = None

    @property
    def takes_any_batch(self) -> bool:
        """Whether the first axis of every input and output is the batch, and dynamic."""
        first = [tensor.shape[0] for tensor in (*self.inputs, *self.outputs)]
        # Axes of another name may count something else, such as the objects in all images; a lone output has one row an image.
        return all(isinstance(size, str) for size in first) and (len(self.outputs) < 2 or len(set(first)) == 1)

    @property
    def labels(self) -> str:
        """The names of the classes, one in each line."""
        return "".join(f"{name}\n" for name in self.classes)

    @property
    def openvino_settings(self) -> dict[str, str | int]:
        """OpenVINO's own names and values of the settings, which compute in the precision that was measured."""
        values = self.values
        found = {
            "PERFORMANCE_HINT": values.get("hint", "LATENCY"),
            "NUM_STREAMS": values.get("streams", 1),
            "INFERENCE_PRECISION_HINT": values.get("precision", "f32"),
        }
        return found | ({"INFERENCE_NUM_THREADS": values["threads"]} if values.get("threads") else {})


@dataclass(frozen=True)
class Layout:
    """The folder that one server loads.

    Attributes:
        name: Name for `--layout`.
        server: Name of the server.
        runs: Returns the backend that the server runs an artifact with; None where it cannot run it.
        needs: What it runs, for the refusal of other artifacts.
        files: Text or path of each file, by its name in the folder.
    """

    name: str
    server: str
    runs: Callable[[BundleVariant], str | None]
    needs: str
    files: Callable[[Served], Mapping[str, str | Path]]


def rendered(template: str, served: Served, **values: Any) -> str:
    """Return the text of a template in `templates/layouts`, which sees the model as `served`."""
    made = environment().get_template(f"layouts/{template}.jinja")
    return str(made.render(served=served, image=served.inputs[0], **values))


def served_model(contents: Contents, layout: Layout, name: str, classes: Sequence[str], licence: str | None) -> Served:
    """Return the fastest model that a server runs.

    Raises:
        BundleError: it runs none of them.
        ModelError: the model cannot be read.
    """
    running = next(((each, library) for each in contents.variants if (library := layout.runs(each))), None)
    if running is None:
        found = ", ".join(f"{Path(each.file).name} ({each.kind} for {each.backend or 'any'})" for each in contents.variants)
        problem = f"--layout {layout.name}: {layout.server} runs none of these artifacts: {found}"
        raise BundleError(problem, f"bundle {layout.needs}")
    variant, library = running
    values, batch = _tuned(contents, variant, library)
    path = contents.files[variant.file]
    files, inputs, outputs = _engine(contents, variant) if variant.kind == "engine" else _onnx(path)
    if len(inputs) != 1 or not all(tensor.shape for tensor in (*inputs, *outputs)):
        problem = f"--layout {layout.name}: {path} does not have one input, or one of its tensors has no axes"
        raise BundleError(problem, "bundle a model that takes images only")
    return Served(
        _server_name(name),
        variant,
        library,
        contents.manifests[variant.name],
        files,
        inputs,
        outputs,
        inputs[0].shape[-1] in CHANNELS,
        values,
        batch,
        tuple(classes),
        licence,
        contents.preprocessing,
    )


_Parts = tuple[dict[str, Path], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""The files, inputs and outputs of a model, as in `Served`."""


def _engine(contents: Contents, variant: BundleVariant) -> _Parts:
    path = contents.files[variant.file]
    image = contents.manifests[variant.name].details.get("tensorrt", {}).get("input")
    if image is None:
        raise BundleError(f"{path}: its manifest does not say what its input is", "build the engine again")
    return {path.name: path}, (TensorSpec(image["name"], image["dtype"], tuple(image["shape"])),), ()


def _onnx(path: Path) -> _Parts:
    file = OnnxFile.open(path)
    stored = {tensor.name for tensor in file.graph.initializer}
    inputs = tuple(_spec(value) for value in file.graph.input if value.name not in stored)
    files = {"model.onnx": path, **{sidecar.location: sidecar.path for sidecar in file.sidecars}}
    return files, inputs, tuple(map(_spec, file.graph.output))


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    sizes = (int(size.dim_value) if size.dim_value > 0 else size.dim_param or "?" for size in kind.shape.dim)
    return TensorSpec(value.name, dtype_name(kind.elem_type), tuple(sizes))


def _tuned(contents: Contents, variant: BundleVariant, library: str) -> tuple[dict[str, Any], int | None]:
    """Return the tuned settings of an artifact, or of an engine built from it, and the fastest batch offline."""
    records = list(_records(contents, variant, library))
    values: dict[str, Any] = next((one["values"] for one in records if one.get("values")), {})
    batches = (one.get("batch") for one in records if one.get("scenario") == "offline")
    return dict(values), next(filter(None, batches), None)


def _records(contents: Contents, variant: BundleVariant, library: str) -> Iterator[Mapping[str, Any]]:
    source = contents.manifests[variant.name].sha256
    for name, manifest in contents.manifests.items():
        if name == variant.name or source in manifest.inputs.values():
            yield from (record for record in manifest.settings if record.get("backend") == library)


def _server_name(name: str) -> str:
    """Return a name that every server takes as a folder, a part of an address and a name in Kubernetes."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:LONGEST_NAME].strip("-")
    return plain if plain[:1].isalpha() else f"model-{plain}".strip("-")
