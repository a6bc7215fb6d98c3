"""Our calibration and its peers behind one signature, each called as its own documentation says."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.data.sources import ImageSource, choose_indices, open_source
from peers.job import Job

__all__ = ["METHODS", "SEED", "Images", "Method"]

SEED = 0


class Images:
    """The calibration images that every method gets, decoded one by one when they are read."""

    def __init__(self, job: Job) -> None:
        """Open the data set and choose the images as `emca-deploy calibrate` does."""
        self.source: ImageSource = open_source(job.data, job.preprocessing)
        self.indices: Sequence[int] = choose_indices(len(self.source), job.samples, self.source.labels, SEED)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield each image as a batch of one, (1, 3, S, S) float32."""
        for images, _ in self.source.batches(1, self.indices):
            yield images


@dataclass(frozen=True)
class Method:
    """A way to quantize.

    Attributes:
        quantize: Function that quantizes and writes the job's output.
        modules: Modules imported before the clock starts.
        distributions: Distributions that the figures depend on; the first missing one is what to install.
        suffix: Suffix of the output file.
    """

    quantize: Callable[[Job, Images], None]
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    suffix: str = ".onnx"


def ours(job: Job, images: Images) -> None:
    """Calibrate with this package; `arguments` are fields of `CalibrationOptions`, `table` a path."""
    known = {field.name for field in fields(CalibrationOptions)}
    recipe = find_recipe(job.arguments["backend"], job.arguments.get("weight_bits"))
    given = {name: Path(value) if name == "table" else value for name, value in job.arguments.items() if name in known}
    options = CalibrationOptions(recipe, all_recipes(), samples=job.samples, seed=SEED, threads=job.threads, **given)
    calibrate_model(job.model, images.source, job.output, options)


def nncf(job: Job, images: Images) -> None:
    """Run NNCF's post-training quantization on the OpenVINO model; `preset` is MIXED or PERFORMANCE."""
    import nncf as library
    import openvino

    model = openvino.Core().read_model(str(job.model))
    preset = library.QuantizationPreset[job.arguments["preset"]]
    quantized = library.quantize(model, library.Dataset(images), preset=preset, subset_size=len(images))
    openvino.save_model(quantized, str(job.output), compress_to_fp16=False)


def quantize_static(job: Job, images: Images) -> None:
    """Run ONNX Runtime's static quantization; `calibrate_method` is a name in `CalibrationMethod`, the rest is passed on."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    name = onnxruntime.InferenceSession(str(job.model), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {name: image}

    arguments = dict(job.arguments)
    if "activation_type" in arguments:
        arguments["activation_type"] = QuantType[arguments["activation_type"]]
    method = CalibrationMethod[arguments.pop("calibrate_method")]
    quantize_static(str(job.model), str(job.output), Reader(), calibrate_method=method, **arguments)


def model_optimizer(job: Job, images: Images) -> None:
    """Run NVIDIA Model Optimizer on the ONNX file; `calibration_method` is max or entropy."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(job.model),
        quantize_mode="int8",
        calibration_data=np.concatenate(list(images)),
        calibration_method=job.arguments["calibration_method"],
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(job.output),
        log_level="ERROR",
    )


def inference(job: Job, images: Images) -> None:
    """Only run the fp32 model on the images, one at a time: the least that any calibration does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for image in images:
        session.run(None, {name: image})


METHODS: dict[str, Method] = {
    "ours": Method(ours, ("onnx_ir", "onnxruntime"), ("onnxruntime", "onnx-ir", "numpy")),
    "nncf": Method(nncf, ("nncf", "openvino"), ("nncf", "openvino"), ".xml"),
    "quantize_static": Method(quantize_static, ("onnxruntime.quantization",), ("onnxruntime", "onnx")),
    "model_optimizer": Method(model_optimizer, ("modelopt.onnx.quantization",), ("nvidia-modelopt", "onnx", "onnxruntime")),
    "inference": Method(inference, ("onnxruntime",), ("onnxruntime",)),
}
