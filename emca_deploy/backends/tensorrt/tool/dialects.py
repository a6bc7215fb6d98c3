"""Options of TensorRT's own tool trtexec by version: one table for what `plan` prints and for what is run.

Read from NVIDIA's sources, samples/common/sampleOptions.cpp of the tags 8.0.1 to 11.1.
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
"""Of a layer in --layerPrecisions: they separate or mean every layer."""


@dataclass(frozen=True)
class Dialect:
    """What a version's trtexec takes and writes.

    Attributes:
        precision_flags: --int8, --fp16 and --calib are known.
        typed_flag: --stronglyTyped is needed for a network whose types are the model's.
        constraints: --precisionConstraints is known.
        layer_precisions: --layerPrecisions is known.
        layer_info: --exportLayerInfo and --profilingVerbosity are known.
        build_only: how to leave out the inference after a build.
        workspace: how to limit the workspace, in MiB.
        levels: --builderOptimizationLevel is known.
        our_defaults: CUDA graph, spinning and a profile run of its own are the default, and copies are left out.
        warm_up_exported: --exportTimes writes the warm-up's queries, too.
        percentiles: --percentile takes a list.
        unstable_percent: coefficient of variation of the GPU's times from which on it warns; None where it does not.
    """

    precision_flags: bool = True
    typed_flag: bool = False
    constraints: bool = True
    layer_precisions: bool = True
    layer_info: bool = True
    build_only: str = "--skipInference"
    workspace: str = "--memPoolSize=workspace:{}"
    levels: bool = True
    our_defaults: bool = False
    warm_up_exported: bool = False
    percentiles: bool = True
    unstable_percent: float | None = 1.0


_OLD = Dialect(build_only="--buildOnly", levels=False)

DIALECTS: tuple[tuple[tuple[int, int], Dialect], ...] = (
    (
        (8, 0),
        replace(
            _OLD, constraints=False, layer_precisions=False, layer_info=False, workspace="--workspace={}",
            warm_up_exported=True, percentiles=False, unstable_percent=None,
        ),
    ),
    (
        (8, 2),
        replace(
            _OLD, layer_precisions=False, workspace="--workspace={}",
            warm_up_exported=True, percentiles=False, unstable_percent=None,
        ),
    ),
    ((8, 4), replace(_OLD, warm_up_exported=True, percentiles=False)),
    ((8, 5), _OLD),
    ((8, 6), Dialect()),
    ((10, 0), Dialect(typed_flag=True)),
    ((10, 16), Dialect(typed_flag=True, unstable_percent=2.5)),
    ((11, 0), Dialect(precision_flags=False, constraints=False, layer_precisions=False, our_defaults=True, unstable_percent=2.5)),
)  # fmt: skip
"""First version, and its dialect until the next line's."""


@dataclass(frozen=True)
class EngineShapes:
    """Shapes of the one input of a model whose batch is dynamic.

    Attributes:
        image: (C, H, W).
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
    """What to build.

    Attributes:
        onnx: the model's path where trtexec runs.
        engine: the path to write there.
        typed: whether every type is the model's; else the flags below allow types.
        int8: allow INT8; needed for Q/DQ, too, where types are not the model's.
        shapes: shapes of a dynamic batch; None where the model fixes it.
        cache: calibration cache, by its path there.
        float_layers: names of layers that stay fp16 where INT8 comes from a cache.
        dla_core: to run on, with the GPU for what it does not take.
        workspace_mib: most memory a layer may use besides its tensors.
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
    """What to time, and how.

    Attributes:
        engine: its path where trtexec runs.
        times: JSON file of every query's times to write there.
        shapes: shapes of a dynamic batch; the likeliest is timed.
        duration_s: to measure, at least; trtexec counts whole seconds until 8.2.
        warm_up_ms: before that.
        one_at_a_time: no query is enqueued before the one before it is back, as a caller who waits does.
        profile: JSON file of every layer's time, from a run of its own after the measured one; None for no such run.
        layer_info: JSON file of the engine's layers.
        dla_core: that it was built for.
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
    """Return the dialect of a version; one newer than any known is taken for the newest.

    Raises:
        MissingError: it is older than 8.0, which took no Q/DQ.
    """
    found = [dialect for first, dialect in DIALECTS if version[:2] >= first]
    if not found:
        raise MissingError(f"trtexec {version_name(version)} is too old", "install TensorRT 8.0 or newer: JetPack 4.6 or newer")
    return found[-1]


def version_name(version: Version) -> str:
    """Return a version as people write it: "10.3.0"."""
    return ".".join(map(str, version))


def build_options(version: Version, build: TrtexecBuild) -> list[str]:
    """Return the options that build an engine, without the tool itself.

    Raises:
        InputError: this version does not build so: it takes no calibration cache, or no flags for types.
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
                f"trtexec {version_name(version)} has no optimization levels",
                "leave --optimization-level out: 8.6 began with them",
            )
        options.append(f"--builderOptimizationLevel={build.optimization_level}")
    return options


def _type_options(version: Version, dialect: Dialect, build: TrtexecBuild) -> list[str]:
    if build.typed and build.cache is None:
        if not dialect.typed_flag and not dialect.our_defaults:
            raise InputError(
                f"trtexec {version_name(version)} builds no strongly typed networks", "allow types by flags: 10.0 began with them"
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
    """Return the options that hold layers at fp16; layers without a range in the cache end up there anyway."""
    spelled = [name for name in names if not NAMES_A_SPEC_CANNOT_HOLD & set(name)]
    if not dialect.layer_precisions or not spelled:
        return []
    return ["--precisionConstraints=prefer", "--layerPrecisions=" + ",".join(f"{name}:fp16" for name in spelled)]


def boundary_options(version: Version, *, dla: bool) -> list[str]:
    """Return the options that make every version time the same thing, whatever its defaults.

    That is: copies to and from the device included, the waiting host spinning, kernels launched as one CUDA graph except on a
    DLA, which has none. 11.0 made graph and spinning the default and left the copies out; what means the default is not said,
    since 11 calls it deprecated.

    Raises:
        MissingError: the version is too old.
    """
    if dialect_of(version).our_defaults:
        return ["--includeDataTransfers", *(["--noCudaGraph"] if dla else [])]
    return ["--useSpinWait", *([] if dla else ["--useCudaGraph"])]


def timing_options(version: Version, timing: TrtexecTiming) -> list[str]:
    """Return the options that time an engine, without the tool itself.

    Raises:
        MissingError: the version is too old.
    """
    dialect = dialect_of(version)
    options = [f"--loadEngine={timing.engine}"]
    if timing.shapes is not None:
        options.append(timing.shapes.option("shapes", timing.shapes.batches[1]))
    if timing.dla_core is not None:
        options.append(f"--useDLACore={timing.dla_core}")
    options += boundary_options(version, dla=timing.dla_core is not None)
    if timing.one_at_a_time:
        options.append("--exposeDMA")  # in every version the opposite of enqueuing one query ahead
    options += [f"--warmUp={round(timing.warm_up_ms)}", f"--duration={max(1, round(timing.duration_s))}"]
    options.append(f"--exportTimes={timing.times}")
    if dialect.percentiles:
        options.append("--percentile=50,90,95,99")
    if timing.profile is not None:
        # Without a run of its own until 10.x the profiler would be in the measured run, and no times would be written.
        options += [f"--exportProfile={timing.profile}", *([] if dialect.our_defaults else ["--separateProfileRun"])]
    if timing.layer_info is not None and dialect.layer_info:
        options += [f"--exportLayerInfo={timing.layer_info}", "--profilingVerbosity=detailed"]
    return options
