"""Builds of TensorRT engines with trtexec, for machines that have TensorRT without its Python package."""

from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest
from emca_deploy.backends.base import RunOptions, refuse_precision
from emca_deploy.backends.engines import EngineBuilder
from emca_deploy.backends.tensorrt.builder import TrtBuild, described, machine_of
from emca_deploy.backends.tensorrt.cache import check_cache
from emca_deploy.backends.tensorrt.model_facts import ModelFacts, count_convolutions, qdq_refusal, read_facts
from emca_deploy.backends.tensorrt.operators import check_operators
from emca_deploy.backends.tensorrt.settings import TrtSettings, batches_of, check_batches
from emca_deploy.backends.tensorrt.tool.dialects import EngineShapes, TrtexecBuild
from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec
from emca_deploy.backends.tensorrt.tool.run import EngineBuild, build_engine
from emca_deploy.errors import InputError, ModelError

__all__ = ["TrtexecBuilder", "trtexec_build"]

TYPED_SINCE = (10, 0, 0)


def trtexec_build(
    version: tuple[int, int, int],
    facts: ModelFacts,
    settings: TrtSettings,
    batches: tuple[int, int, int] | None,
    engine: str,
    float_layers: tuple[str, ...] = (),
) -> TrtexecBuild:
    """Return the build that gives an engine the types of its model, or those of a DLA or a calibration cache.

    Its paths are local: replace them where trtexec runs on a remote machine. `batches` are those of a dynamic batch, or None;
    `float_layers` are the layers that the calibration cache leaves in float.

    Raises:
        ModelError: the model has Q/DQ together with a DLA or a calibration cache.
    """
    dla, cache = settings.dla_core is not None, settings.calibration_cache
    flagged = version < TYPED_SINCE or ((dla or cache is not None) and version < (11, 0, 0))
    quantized = facts.precision == "int8"
    if quantized and (dla or cache is not None):
        raise qdq_refusal(facts.path, "DLA" if dla else "a calibration cache")
    return TrtexecBuild(
        onnx=str(facts.path),
        engine=engine,
        typed=not flagged,
        int8=flagged and (quantized or cache is not None),
        fp16=flagged and (dla or facts.precision == "fp16"),
        shapes=EngineShapes(facts.input.name, tuple(map(int, facts.input.shape[1:])), batches) if batches else None,
        cache=str(cache) if cache else None,
        float_layers=float_layers,
        dla_core=settings.dla_core,
        workspace_mib=settings.workspace_mib,
        optimization_level=settings.optimization_level,
    )


class TrtexecBuilder(EngineBuilder):
    """Builds engines of TensorRT with trtexec, on the GPU they are for.

    Without a path, trtexec is searched in its usual places. The calibration cache leaves `float_layers` in float.
    """

    backend = "tensorrt"

    def __init__(
        self,
        settings: TrtSettings | None = None,
        path: str | None = None,
        timeout_s: float = 7200.0,
        float_layers: tuple[str, ...] = (),
    ) -> None:
        self._settings, self._float_layers = settings or TrtSettings(), float_layers
        self._path, self._timeout_s = path, timeout_s
        self.last: tuple[TrtBuild, EngineBuild] | None = None
        """The result of the last build."""

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the serialized engine and return the library's name and version.

        Raises:
            ModelError: TensorRT does not accept the model, or compiles none of its INT8 convolutions to INT8.
            InputError: a setting is wrong, or this version cannot build the engine.
            MissingError: there is no trtexec, or no GPU that it can use.
            WorkerError: trtexec crashed or hung.
        """
        refuse_precision(self.backend, options.precision)
        self._check_settings()
        facts = read_facts(model)
        tool = self._find()
        check_operators(model, self.backend, tool.version)
        if self._settings.calibration_cache is not None:
            check_cache(self._settings.calibration_cache, tool.version_text)
        batches = batches_of(facts.input, self._settings, options)
        wanted = trtexec_build(tool.version, facts, self._settings, batches, str(output), self._float_layers)
        built = self._build(tool, wanted)
        convolutions, quantized = count_convolutions(model)
        cache = self._settings.calibration_cache
        outcome = TrtBuild(
            version=tool.version_text,
            targets=(),
            batches=batches,
            convolutions=convolutions,
            quantized_convolutions=quantized,
            layers=built.layers,
            warnings=built.warnings,
            dla_core=self._settings.dla_core,
            calibration_cache=str(cache) if cache else None,
            placement=built.dla,
            input=facts.input,
        )
        self.last = outcome, built
        if facts.precision == "int8" and built.layers and not built.int8_convolutions:
            raise ModelError(
                f"{model}: tensorrt compiles none of its INT8 convolutions to INT8",
                "calibrate the fp32 model with --backend tensorrt, or build the fp32 model",
            )
        return self.backend, tool.version_text

    def describe(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the engine's details from trtexec's log."""
        assert self.last is not None  # `compile` has set it
        outcome, built = self.last
        details = {"machine": self._machine(), "tensorrt": outcome.to_dict(), "trtexec": built.to_dict()}
        return described(manifest, outcome, details)

    def _find(self) -> Trtexec:
        """Return the tool on the machine that builds."""
        return find_trtexec(path=self._path)

    def _build(self, tool: Trtexec, wanted: TrtexecBuild) -> EngineBuild:
        """Build an engine; it and the model are local files."""
        return build_engine(tool, wanted, timeout_s=self._timeout_s)

    def _machine(self) -> dict[str, Any]:
        """Return the machine that the engine is for."""
        return machine_of()

    def _check_settings(self) -> None:
        lacking = (
            ("--timing-cache", self._settings.timing_cache is not None),
            ("--version-compatible", self._settings.version_compatible),
            ("--hardware-compatible", self._settings.hardware_compatible),
            ("--target-capability", bool(self._settings.targets)),
        )
        given = [name for name, wanted in lacking if wanted]
        if given:
            raise InputError(
                f"{', '.join(given)} cannot be used with --trtexec", "leave it out, or build with TensorRT's Python package"
            )
        check_batches(self._settings)
