"""The options of trtexec by version, in one table for the commands that `plan` prints and for those that run.

Source: NVIDIA's samples/common/sampleOptions.cpp, tags 8.0.1 to 11.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from emca_deploy.errors import InputError, MissingError

__all__ = [
    "Dialect",
    "EngineShapes",
    "TrtexecBuild",
    "TrtexecTiming",
    "boundary_options",
    "build_options",
    "dialect_of",
    "timing_options",
    "version_name",
]

Version = tuple[int, int, int]

NAMES_A_SPEC_CANNOT_HOLD = frozenset(",:*")
"""Characters of layer names that --layerPrecisions cannot contain: they separate entries or mean every layer."""


@dataclass(frozen=True)
class Dialect:
    """The options and files of a version's trtexec.

    Attributes:
        precision_flags: Whether it has --int8, --fp16 and --calib.
        typed_flag: Whether a network with the types of the model needs --stronglyTyped.
        layer_precisions: Whether it has --layerPrecisions.
        layer_info: Whether it has --exportLayerInfo and --profilingVerbosity.
        build_only: Option that skips the inference after a build.
        workspace: Option that limits the workspace, in MiB.
        levels: Whether it has --builderOptimizationLevel.
        our_defaults: Whether CUDA graph, spinning, a separate profile run and no copies are the default.
        warm_up_exported: Whether --exportTimes also writes the queries of the warm-up.
        percentiles: Whether --percentile takes a list.
    """

    precision_flags: bool = True
    typed_flag: bool = False
    layer_precisions: bool = True
    layer_info: bool = True
    build_only: str = "--skipInference"
    workspace: str = "--memPoolSize=workspace:{}"
    levels: bool = True
    our_defaults: bool = False
    warm_up_exported: bool = False
    percentiles: bool = True


_OLD = Dialect(build_only="--buildOnly", levels=False)

DIALECTS: tuple[tuple[tuple[int, int], Dialect], ...] = (
    (
        (8, 0),
        replace(
            _OLD, layer_precisions=False, layer_info=False, workspace="--workspace={}", warm_up_exported=True, percentiles=False
        ),
    ),
    ((8, 2), replace(_OLD, layer_precisions=False, workspace="--workspace={}", warm_up_exported=True, percentiles=False)),
    ((8, 4), replace(_OLD, warm_up_exported=True, percentiles=False)),
    ((8, 5), _OLD),
    ((8, 6), Dialect()),
    ((10, 0), Dialect(typed_flag=True)),
    ((11, 0), Dialect(precision_flags=False, layer_precisions=False, our_defaults=True)),
)
"""First version, and the dialect until the version in the next line."""


@dataclass(frozen=True)
class EngineShapes:
    """The shapes of the input of a model whose batch is dynamic.

    Attributes:
        image: Sizes (C, H, W).
        batches: Smallest, likeliest and largest batch.
    """

    name: str
    image: tuple[int, ...]
    batches: tuple[int, int, int]

    def option(self, kind: str, batch: int) -> str:
        """Return an option such as `--optShapes=images:8x3x224x224`."""
        name = f"'{self.name}'" if set(self.name) & set(":,") else self.name
        return f"--{kind}={name}:{'x'.join(map(str, (batch, *self.image)))}"


@dataclass(frozen=True)
class TrtexecBuild:
    """A build; the paths are those of the machine that runs trtexec.

    Attributes:
        typed: Whether every type is the model's; else the flags below allow types.
        int8: Whether INT8 is allowed, which Q/DQ needs, too, unless the network is typed.
        fp16: Whether fp16 is allowed.
        shapes: Shapes of a dynamic batch; None where the model fixes it.
        cache: Path of the calibration cache.
        float_layers: Names of layers that stay fp16 where INT8 comes from a cache.
        dla_core: DLA core that runs the engine, with the GPU for layers that it does not support.
        workspace_mib: Most memory in MiB that a layer may use in addition to its tensors.
        optimization_level: 0 builds fastest, 5 searches longest.
    """

    onnx: str
    engine: str
    typed: bool = True
    int8: bool = False
    fp16: bool = False
    shapes: EngineShapes | None = None
    cache: str | None = None
    float_layers: tuple[str, ...] = ()
    dla_core: int | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None


@dataclass(frozen=True)
class TrtexecTiming:
    """A measurement; the paths are those of the machine that runs trtexec.

    Attributes:
        times: JSON file to write the times of all queries to.
        shapes: Shapes of a dynamic batch; the likeliest is timed.
        duration_s: Least duration of the measurement in seconds, rounded to whole ones.
        warm_up_ms: Duration of the warm-up before it, in ms.
        one_at_a_time: Whether a query starts only after the one before it has ended.
        profile: JSON file to write the times of all layers to, from a separate run after the measured one; None for no such run.
        layer_info: JSON file to write the engine's layers to.
        dla_core: DLA core that the engine was built for.
    """

    engine: str
    times: str
    shapes: EngineShapes | None = None
    duration_s: float = 10.0
    warm_up_ms: float = 500.0
    one_at_a_time: bool = True
    profile: str | None = None
    layer_info: str | None = None
    dla_core: int | None = None


def dialect_of(version: Version) -> Dialect:
    """Return a version's dialect, later ones having the newest; raise MissingError before 8.0, the first with Q/DQ."""
    found = [dialect for first, dialect in DIALECTS if version[:2] >= first]
    if not found:
        raise MissingError(f"trtexec {version_name(version)} is too old", "install TensorRT 8.0 or newer: JetPack 4.6 or newer")
    return found[-1]


def version_name(version: Version) -> str:
    """Return a version as text: "10.3.0"."""
    return ".".join(map(str, version))


def build_options(version: Version, build: TrtexecBuild) -> list[str]:
    """Return the options that build an engine, without the tool itself.

    Raises:
        InputError: this version has no calibration caches, flags for types, typed networks or levels, and the build needs them.
        MissingError: the version is too old.
    """
    dialect = dialect_of(version)
    options = [f"--onnx={build.onnx}", f"--saveEngine={build.engine}"]
    if build.shapes is not None:
        low, likely, high = build.shapes.batches
        fixed = low == likely == high
        kinds = {"shapes": likely} if fixed else {"minShapes": low, "optShapes": likely, "maxShapes": high}
        options += [build.shapes.option(kind, batch) for kind, batch in kinds.items()]
    options += _type_options(version, dialect, build)
    if build.dla_core is not None:
        options += [f"--useDLACore={build.dla_core}", "--allowGPUFallback"]
    if build.workspace_mib is not None:
        options.append(dialect.workspace.format(build.workspace_mib))
    if build.optimization_level is not None:
        if not dialect.levels:
            raise InputError(
                f"trtexec {version_name(version)} has no optimization levels", "leave --optimization-level out: it needs 8.6"
            )
        options.append(f"--builderOptimizationLevel={build.optimization_level}")
    return options


def _type_options(version: Version, dialect: Dialect, build: TrtexecBuild) -> list[str]:
    if build.typed and build.cache is None:
        if not dialect.typed_flag and not dialect.our_defaults:
            raise InputError(
                f"trtexec {version_name(version)} has no strongly typed networks", "allow types by flags, or use 10.0 or newer"
            )
        return ["--stronglyTyped"] if dialect.typed_flag else []
    if not dialect.precision_flags:
        asked = "calibration cache" if build.cache else "--int8 and --fp16"
        raise InputError(
            f"trtexec {version_name(version)} has no {asked}", "build from a typed model: Q/DQ for int8, an fp16 model for fp16"
        )
    options = [f"--{name}" for name, wanted in (("int8", build.int8 or build.cache), ("fp16", build.fp16)) if wanted]
    if build.cache is not None:
        options.append(f"--calib={build.cache}")
        options += _layer_precisions(dialect, build.float_layers)
    return options


def _layer_precisions(dialect: Dialect, names: Sequence[str]) -> list[str]:
    """Return the options that keep layers in fp16; layers without a range in the cache are in fp16 anyway."""
    spelled = [name for name in names if not NAMES_A_SPEC_CANNOT_HOLD & set(name)]
    if not dialect.layer_precisions or not spelled:
        return []
    return ["--precisionConstraints=prefer", "--layerPrecisions=" + ",".join(f"{name}:fp16" for name in spelled)]


def boundary_options(version: Version, *, dla: bool) -> list[str]:
    """Return the options that make all versions time the same thing, whatever their defaults.

    The time includes copies to and from the device; the waiting host spins; kernels are launched as one CUDA graph, except on a
    DLA, which has none. From 11.0 on, graph and spinning are the default, whose options are deprecated, and copies are not.

    Raises:
        MissingError: the version is too old.
    """
    if dialect_of(version).our_defaults:
        return ["--includeDataTransfers", *(["--noCudaGraph"] if dla else [])]
    return ["--useSpinWait", *([] if dla else ["--useCudaGraph"])]


def timing_options(version: Version, timing: TrtexecTiming) -> list[str]:
    """Return the options that time an engine, without the tool itself."""
    dialect = dialect_of(version)
    options = [f"--loadEngine={timing.engine}"]
    if timing.shapes is not None:
        options.append(timing.shapes.option("shapes", timing.shapes.batches[1]))
    if timing.dla_core is not None:
        options.append(f"--useDLACore={timing.dla_core}")
    options += boundary_options(version, dla=timing.dla_core is not None)
    if timing.one_at_a_time:
        options.append("--exposeDMA")  # in all versions: do not enqueue one query ahead
    options += [f"--warmUp={round(timing.warm_up_ms)}", f"--duration={max(1, round(timing.duration_s))}"]
    options.append(f"--exportTimes={timing.times}")
    if dialect.percentiles:
        options.append("--percentile=50,90,95,99")
    if timing.profile is not None:
        # Until 10.x, without a separate run, the profiler would be part of the measured run, and no times would be written.
        options += [f"--exportProfile={timing.profile}", *([] if dialect.our_defaults else ["--separateProfileRun"])]
    if timing.layer_info is not None and dialect.layer_info:
        options += [f"--exportLayerInfo={timing.layer_info}", "--profilingVerbosity=detailed"]
    return options
