"""`plan`: how TensorRT builds an engine for a board or GPU."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Precision
from emca_deploy.backends.registry import find_recipe
from emca_deploy.backends.tensorrt.model_facts import read_facts
from emca_deploy.backends.tensorrt.operators import check_operators
from emca_deploy.backends.tensorrt.planner import Plan, PlanRequest, make_plan
from emca_deploy.backends.tensorrt.steps import Step, can_build, list_steps, trtexec_command
from emca_deploy.calibration.placement.calibration_cache import float_layers
from emca_deploy.exporting.dla_convert import load_float_model
from emca_deploy.exporting.dla_rules import nodes_off_dla
from emca_deploy.machines.boards import find_board, find_jetpack

__all__ = ["PlanReport", "plan"]


@dataclass(frozen=True)
class PlanReport:
    """How to build an engine.

    Attributes:
        model: the .onnx file.
        plan: the choices and their reasons.
        commands: commands to run, in order, each with the machine to run it on.
        builds: whether `build` can do it; otherwise only trtexec can.
        trtexec: command line of TensorRT's own tool; None if it cannot do it.
        off_dla: number of nodes of each operator that a DLA cannot run; None without a DLA.
    """

    model: Path
    plan: Plan
    commands: tuple[Step, ...]
    builds: bool
    trtexec: str | None = None
    off_dla: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `plan`."""
        return {
            "schema_version": 1,
            "model": self.model,
            **self.plan.to_dict(),
            "commands": self.commands,
            "trtexec": self.trtexec,
            **({"off_dla": self.off_dla} if self.off_dla is not None else {}),
        }


def plan(
    model: Path | str,
    backend: str,
    device: str,
    *,
    jetpack: str | None = None,
    tensorrt_version: str | None = None,
    dla: bool = False,
    precision: Precision = "int8",
    data: Path | None = None,
) -> PlanReport:
    """Plan how TensorRT builds an engine. Neither TensorRT nor the device is needed, and nothing is built.

    Args:
        model: the .onnx file.
        backend: "tensorrt" or "tensorrt-rtx".
        device: board, such as "orin-nx", or compute capability, such as "8.6" or "sm_87".
        jetpack: JetPack release of the board, which implies its TensorRT version.
        tensorrt_version: version that builds the engine; None is the JetPack's.
        dla: whether to build for a DLA core, with the GPU for the layers that it cannot run.
        precision: "fp32", "fp16" or "int8".
        data: calibration images, to complete the commands.

    Raises:
        InputError: version, device, DLA and precision exclude each other; the remedy names an alternative.
        ModelError: the model cannot be read, or cannot be built like this.
    """
    wanted = PlanRequest(
        backend, find_board(device), tensorrt_version, find_jetpack(jetpack) if jetpack else None, dla, precision
    )
    model = Path(model)
    facts = read_facts(model)
    made = make_plan(facts, wanted)
    check_operators(model, backend, made.version)
    # With a calibration cache, trtexec needs the names of the layers that the recipe leaves in float.
    in_float = float_layers(model, find_recipe(backend)) if made.quantization == "cache" else ()
    checked = dla and facts.precision == "fp32"
    off_dla = nodes_off_dla(load_float_model(model).graph) if checked else ()
    return PlanReport(
        model,
        made,
        tuple(list_steps(made, facts, data)),
        can_build(made),
        trtexec_command(made, facts, in_float),
        dict(Counter(node.operator for node in off_dla)) if checked else None,
    )
