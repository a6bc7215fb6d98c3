"""Requests: what is to be done, as values that can be kept, compared, and sent to a remote machine.

`targets.registry.parse(request.target).run(request)` runs one. Its paths are those of the machine that runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.latency import Scenario

__all__ = [
    "BuildRequest",
    "DeploymentRequest",
    "LogitsRequest",
    "ProfileRequest",
    "Request",
    "TaskName",
    "TrtChoices",
    "TuneRequest",
]

TaskName = Literal["classification", "detection"]
"""The task of a network."""


@dataclass(frozen=True)
class ProfileRequest:
    """Measure latency and throughput.

    Attributes:
        artifacts: "path", "backend=path", or either with several paths joined by "+", which are measured as one candidate.
        backends: backends to run the artifacts on; none means each artifact's own.
        target: "cpu", "gpu", "gpu:1", "jetson" or "ssh://host"; None is jetson on a Jetson board, else cpu.
        scenario: "single-stream" (one call after the other), "offline" (as many calls at once as the runtime takes) or "paced"
            (calls at a rate, as frames come from a camera).
        batch: images per call; None is 1, offline 8.
        threads: threads of each candidate; None is one per physical core.
        precision: precision of the float parts, if the backend has a choice.
        duration_s: least time to measure each candidate.
        max_duration_s: most time; None is 6 times the least.
        processes: processes of each candidate; None is 8 to compare several on a processor, else 1.
        warmup_s: most time to warm up each candidate.
        seed: random seed of the input and of the order of blocks.
        telemetry: whether to sample clocks, temperatures, power and memory during the run.
        power_mode: power mode of a Jetson during the run; None does not change it.
        untuned: whether to ignore tuned settings in manifests.
        io: the user's facts about input and output: "image_size", "output_name".
        rates: rates of the paced scenario, in frames per second.
        deadline_ms: longest time from when a frame comes to its answer; without rates, the highest rate that meets it is found.
        concurrency: numbers of calls at once in one process, each in a thread with a loaded model of its own.
        data: data set of real images to measure with too; None measures with random input only.
        end_to_end: whether to measure from an image file of `data` to the answer too.
        co_run: whether the two artifacts are also measured while both run.
        load_together: whether all candidates load at the same time, which is faster, but load times are not those of one alone.
    """

    artifacts: tuple[str, ...]
    backends: tuple[str, ...] = ()
    target: str | None = "cpu"
    scenario: Scenario = "single-stream"
    batch: int | None = None
    threads: int | None = None
    precision: str = "f32"
    duration_s: float = 5.0
    max_duration_s: float | None = None
    processes: int | None = None
    warmup_s: float = 2.0
    seed: int = 0
    telemetry: bool = True
    power_mode: str | None = None
    untuned: bool = False
    io: Mapping[str, Any] = field(default_factory=dict)
    load_together: bool = False
    rates: tuple[float, ...] = ()
    deadline_ms: float | None = None
    concurrency: tuple[int, ...] = ()
    co_run: bool = False
    data: str | None = None
    end_to_end: bool = False


@dataclass(frozen=True)
class LogitsRequest:
    """Run a data set through one model, and collect its answers: logits, or detections. Other fields are as in `ProfileRequest`.

    Attributes:
        artifact: "path" or "backend=path".
        data: the data set: a folder of images, a .zip or an .npz.
        backend: backend to run it on; None is the artifact's own.
        preprocessing: how images become the model's input; None leaves the choice to the caller's `choose` function.
        limit: number of images, equally many per class; None is all.
        batch: images per call.
        logits: .npz file that keeps the answers, from which an interrupted run continues; None keeps none.
        task: task that the model must have, "classification" or "detection".
        images: names of the images to run, in this order; None is all of the data set.
    """

    artifact: str
    data: str
    backend: str | None = None
    target: str | None = "cpu"
    power_mode: str | None = None
    preprocessing: Preprocessing | None = None
    limit: int | None = None
    batch: int = 16
    threads: int | None = None
    precision: str = "f32"
    untuned: bool = False
    io: Mapping[str, Any] = field(default_factory=dict)
    logits: str | None = None
    task: TaskName = "classification"
    images: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrtChoices:
    """Options of TensorRT's builders, by their names on the command line; see `TrtSettings`.

    Attributes:
        batches: smallest, most likely and largest batch, as "1,8,64".
        targets: compute capabilities to compile for.
    """

    batches: str | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    targets: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    calibration_cache: Path | None = None

    def given(self) -> dict[str, Any]:
        """Return the choices that differ from the defaults, by name."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


@dataclass(frozen=True)
class BuildRequest:
    """Build an engine from an ONNX model. Other fields are as in `ProfileRequest`.

    Attributes:
        model: the .onnx file.
        backend: backend that the engine is for.
        output: engine file to write; its manifest is written next to it.
        threads: threads to compile for; None is one per physical core.
        batch: number of images to fix a dynamic batch to; None leaves it dynamic.
        choices: TensorRT's options.
        trtexec: "auto" or the path of trtexec, to build with it; None builds with TensorRT's Python package.
        float_layers: names of the layers that a calibration cache leaves in float, for trtexec.
    """

    model: str
    backend: str
    output: str
    target: str | None = "cpu"
    power_mode: str | None = None
    threads: int | None = None
    batch: int | None = None
    choices: TrtChoices = field(default_factory=TrtChoices)
    trtexec: str | None = None
    io: Mapping[str, Any] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TuneRequest:
    """Find the fastest runtime settings of an artifact on this machine. Other fields are as in `ProfileRequest`.

    Attributes:
        artifact: path of an .onnx file or an engine.
        backend: backend to run it on; None is the artifact's own.
        budget_s: approximate duration of the search.
        threads_max: largest number of threads to try; None is all logical cores that this process may use.
        precisions: other precisions than "f32" to try, although they change the logits.
    """

    artifact: str
    backend: str | None = None
    scenario: Scenario = "single-stream"
    budget_s: float = 120.0
    threads_max: int | None = None
    precisions: tuple[str, ...] = ()
    seed: int = 0
    io: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeploymentRequest:
    """List what `deploy` builds and measures on a target. The target is as in `ProfileRequest`.

    Attributes:
        backends: backends to use; none means all that fit the target.
    """

    target: str | None = "cpu"
    backends: tuple[str, ...] = ()


Request = ProfileRequest | LogitsRequest | BuildRequest
"""A request that a target runs."""
