"""`plan`: what a TensorRT build must look like, before it is begun."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Precision
from emca_deploy.backends.registry import find_recipe
from emca_deploy.backends.tensorrt.model_facts import read_facts
from emca_deploy.backends.tensorrt.planner import Plan, PlanRequest, make_plan
from emca_deploy.backends.tensorrt.steps import Step, can_build, list_steps, trtexec_command
from emca_deploy.calibration.placement.calibration_cache import float_layers
from emca_deploy.exporting.dla_convert import load_float_model
from emca_deploy.exporting.dla_rules import nodes_off_dla
from emca_deploy.machines.boards import find_board, find_jetpack
from emca_deploy.results.codec import to_json

__all__ = ["PlanReport", "plan"]


@dataclass(frozen=True)
class PlanReport:
    """How to build an engine.

    Attributes:
        model: the .onnx file.
        plan: what was chosen, and why.
        commands: to type, in order, each with where.
        builds: whether `build` can do it; where not, only trtexec can.
        trtexec: the command line of TensorRT's own tool; None where it cannot do it.
        off_dla: how many nodes of each operator a DLA does not run; None without a DLA.
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
            "model": str(self.model),
            **self.plan.to_dict(),
            "commands": [to_json(command) for command in self.commands],
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
    """Choose how TensorRT builds an engine. Neither TensorRT nor the device is needed; nothing is built.

    Args:
        model: the .onnx file.
        backend: "tensorrt" or "tensorrt-rtx".
        device: a board, such as "orin-nx", or a compute capability, such as "8.6" or "sm_87".
        jetpack: the board's release, which says which TensorRT it has.
        tensorrt_version: where the engine is built; None is the JetPack's.
        dla: whether to build for a DLA core, with the GPU for the layers it does not take.
        precision: "fp32", "fp16" or "int8".
        data: calibration images, to complete the commands with.

    Raises:
        InputError: version, device, DLA and precision do not go together; the remedy names a way out.
        ModelError: the model cannot be read, or cannot be built so.
    """
    wanted = PlanRequest(
        backend, find_board(device), tensorrt_version, find_jetpack(jetpack) if jetpack else None, dla, precision
    )
    model = Path(model)
    facts = read_facts(model)
    made = make_plan(facts, wanted)
    # With a calibration cache, trtexec has to be given the layers that the recipe leaves in float.
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
