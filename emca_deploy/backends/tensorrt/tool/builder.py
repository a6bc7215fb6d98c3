"""Engines of TensorRT built with trtexec on this machine: where TensorRT is installed without its Python package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest
from emca_deploy.backends.base import RunOptions, refuse_precision
from emca_deploy.backends.engines import EngineBuilder
from emca_deploy.backends.tensorrt.builder import TrtBuild, described, machine_of
from emca_deploy.backends.tensorrt.cache import check_cache
from emca_deploy.backends.tensorrt.model_facts import ModelFacts, count_convolutions, read_facts
from emca_deploy.backends.tensorrt.settings import TrtSettings, batches_of
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
    """Return what to tell trtexec so that a model comes out in its own types, or in those of a DLA or a calibration cache.

    The model is read here; replace the paths of what is returned where trtexec runs elsewhere. `batches` are those of a dynamic
    batch, None where the model fixes it. `float_layers` are those that the calibration cache leaves in float.
    """
    dla, cache = settings.dla_core is not None, settings.calibration_cache
    flagged = version < TYPED_SINCE or ((dla or cache is not None) and version < (11, 0, 0))
    quantized = facts.precision == "int8"
    if quantized and (dla or cache is not None):
        what = "DLA" if dla else "a calibration cache"
        raise ModelError(f"{facts.path}: has Q/DQ, which {what} does not go with", "name the fp32 model it was made from")
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
    """Builds engines of TensorRT with its own tool, on the GPU they are for.

    Without a path, trtexec is looked for in the usual places. `float_layers` are those that the calibration cache leaves in
    float.
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
        """What the last build came to."""

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the serialized engine and return the library's name and version.

        Raises:
            ModelError: TensorRT does not take the model, or compiles none of its INT8 convolutions to INT8.
            InputError: a setting makes no sense, or this version builds no such engine.
            MissingError: there is no trtexec, or no GPU that it can use.
            WorkerError: it crashed or hung.
        """
        refuse_precision(self.backend, options.precision)
        self._check_settings()
        facts = read_facts(model)
        tool = self._find()
        if self._settings.calibration_cache is not None:
            check_cache(self._settings.calibration_cache, tool.version_text)
        batches = batches_of(facts.input, self._settings, options)
        wanted = trtexec_build(tool.version, facts, self._settings, batches, str(output), self._float_layers)
        built = self._build(tool, wanted)
        self.last = replace(self._outcome(tool, model, batches, built), input=facts.input), built
        if facts.precision == "int8" and built.layers and not built.int8_convolutions:
            raise ModelError(
                f"{model}: tensorrt compiles none of its INT8 convolutions to INT8",
                "calibrate the fp32 model with --backend tensorrt, or build the fp32 model",
            )
        return self.backend, tool.version_text

    def describe(self, manifest: Manifest) -> Manifest:
        """Return the manifest with what trtexec's log says of the engine; INT8 is claimed only where that shows it."""
        assert self.last is not None  # `compile` has set it
        outcome, built = self.last
        details = {"machine": self._machine(), "tensorrt": outcome.to_dict(), "trtexec": built.to_dict()}
        return described(manifest, outcome, details)

    def _find(self) -> Trtexec:
        """Return the tool, wherever it runs."""
        return find_trtexec(path=self._path)

    def _build(self, tool: Trtexec, wanted: TrtexecBuild) -> EngineBuild:
        """Build an engine; it and the model are files of this machine."""
        return build_engine(tool, wanted, timeout_s=self._timeout_s)

    def _machine(self) -> dict[str, Any]:
        """Return what machine the engine is for."""
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
                f"{', '.join(given)} does not go with --trtexec", "leave it out, or build with TensorRT's Python package"
            )
        smallest, likeliest, largest = self._settings.batches
        if not 1 <= smallest <= likeliest <= largest:
            raise InputError(f"batches {self._settings.batches} do not grow from 1 or more", "give smallest, likeliest, largest")

    def _outcome(self, tool: Trtexec, model: Path, batches: tuple[int, int, int] | None, built: EngineBuild) -> TrtBuild:
        convolutions, quantized = count_convolutions(model)
        cache = self._settings.calibration_cache
        return TrtBuild(
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
        )
