"""What is to be done, as values: each operation's request can be kept, compared, and sent to a remote machine.

A target runs them: `targets.registry.parse(request.target).run(request)`. Files are named by paths on the machine that runs the
request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.latency import Scenario

__all__ = ["BuildRequest", "DeploymentRequest", "LogitsRequest", "ProfileRequest", "Request", "TrtChoices", "TuneRequest"]


@dataclass(frozen=True)
class ProfileRequest:
    """Measure latency and throughput.

    Attributes:
        artifacts: "path", "backend=path", or either with several paths joined by "+", which are processes of one candidate.
        backends: to run the artifacts on; none means each artifact's own.
        target: "cpu", "gpu" with an index, "jetson" or "ssh://host"; None is jetson on a Jetson board, and cpu elsewhere.
        scenario: one call after the other, or as many at once as the runtime takes.
        batch: images per call; None is 1, offline 8.
        threads: threads of each candidate; None is one per physical core.
        precision: precision of the float parts, where the backend has a choice.
        duration_s: the least time that each candidate is measured.
        max_duration_s: the most time; None is 6 times the least.
        processes: processes of each candidate; None is 8 where several are compared on a processor, else 1.
        warmup_s: the most time that each candidate warms up.
        seed: random seed of the input and of the order of the blocks.
        telemetry: whether clocks, temperatures, power and memory are sampled during the run.
        power_mode: a Jetson's power mode, held for the whole run; None leaves it as it is.
        untuned: whether to ignore tuned settings in manifests.
        io: what the user says of the models' input and output: "image_size", "output_name".
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


@dataclass(frozen=True)
class LogitsRequest:
    """Run a data set through one model, and gather its logits. Other fields are as in `ProfileRequest`.

    Attributes:
        artifact: "path" or "backend=path".
        data: the data set: a folder of images, a .zip or an .npz.
        backend: the backend to run it on; None means the artifact's own.
        preprocessing: how images become the model's input; None leaves the choice to the caller's `choose` function.
        limit: number of images, the same number of each class; None for all.
        batch: images per call.
        logits: an .npz file to keep the logits in, from which an interrupted run goes on; None for none.
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


@dataclass(frozen=True)
class TrtChoices:
    """What only TensorRT's builders can be told. The fields are the names of the command line; see `TrtSettings`.

    Attributes:
        batches: smallest, likeliest and largest batch, as "1,8,64".
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
        backend: the backend that the engine is for.
        output: the engine's file; its manifest is written beside it.
        threads: threads to compile for; None is one per physical core.
        batch: a size to specialise a dynamic batch to; None leaves it dynamic.
        choices: TensorRT's options.
        trtexec: "auto" or the path of trtexec, to build with it; None for TensorRT's Python package.
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
    """Find the fastest runtime settings of an artifact on this machine.

    Attributes:
        artifact: path of an .onnx file or an engine.
        backend: the backend to run it on; None is the artifact's own.
        scenario: what is to be fast: one call, or many images per second.
        budget_s: about how long it may take.
        threads_max: the most threads to try; None is all logical cores that this process may use.
        precisions: precisions besides "f32" that may be tried, although they change the logits.
        seed: random seed of the measurement and of the random images.
        io: what the user says of the model's input and output: "image_size", "output_name".
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
    """Say what `deploy` would build and measure on a target.

    Attributes:
        target: as in `ProfileRequest`.
        backends: the backends to use; none means all that fit the target.
    """

    target: str | None = "cpu"
    backends: tuple[str, ...] = ()


Request = ProfileRequest | LogitsRequest | BuildRequest
"""What a target can be asked for."""
