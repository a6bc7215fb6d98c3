"""The float part of an INT8 model in fp16, simulated on the CPU before the model is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from emca_deploy._progress import Stage
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.table import RangeTable
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import GateError, InputError
from emca_deploy.exporting.half import HalfGraph
from emca_deploy.exporting.half_parity import emulated
from emca_deploy.exporting.half_quantized import to_half_quantized
from emca_deploy.tasks.logits import agreement_percent, signal_to_noise_db

__all__ = ["FLOAT_PRECISIONS", "FloatPart", "FloatPrecision", "check_float_precision", "halve_float_part", "peaks_of"]

FloatPrecision = Literal["fp32", "fp16"]
FLOAT_PRECISIONS: tuple[FloatPrecision, ...] = ("fp32", "fp16")

IMAGES = 64
"""Calibration images of the simulation."""

MOST_LOST_DB = 3.0
"""Largest loss of SQNR that rounding explains. fp16 adds little error, but moves values between two integers to the other one,
which alone makes a dB of difference on few images; a tensor that fp16 cannot hold costs far more."""


@dataclass(frozen=True)
class FloatPart:
    """The fp16 float part, simulated on calibration images.

    Attributes:
        graph: nodes in fp16 and nodes in fp32.
        sqnr_db: SQNR of the logits against fp32, with the float part in fp32 and in fp16; None without any error.
        same_class_percent: agreement of the two.
    """

    graph: HalfGraph
    sqnr_db: dict[FloatPrecision, float | None]
    same_class_percent: float
    images: int


def check_float_precision(precision: str, recipe: Recipe) -> None:
    """Refuse a precision that a backend's float part cannot have.

    Raises:
        InputError: the precision does not exist, or the backend does not support it.
    """
    if precision not in FLOAT_PRECISIONS:
        raise InputError(f"--float-precision {precision}: there is no such precision", f"one of: {', '.join(FLOAT_PRECISIONS)}")
    if precision == "fp16" and not recipe.half_float_part:
        raise InputError(
            f"--float-precision fp16: backend '{recipe.backend}' computes in float32 between INT8 in any case",
            "leave it out, or calibrate for a GPU's backend",
        )


def peaks_of(table: RangeTable) -> dict[str, float]:
    """Return the largest absolute value of each tensor over the calibration images, or of its range in an old table."""
    seen = {name: max(-found.minimum, found.maximum) for name, found in table.observations.items()}
    return {name: found.magnitude for name, found in table.ranges.items()} | seen


def halve_float_part(
    model: ir.Model, keep: Mapping[ir.Node, str], images: tuple[ir.Model, ImageSource, Sequence[int], int], stage: Stage
) -> FloatPart:
    """Rewrite an INT8 model's float part to fp16, in place, and compare its logits with those before.

    `keep` holds the nodes that stay float32, from `float_beside_int8`; `images` holds the fp32 model's canonical graph, the
    calibration images, their indices, and the number of threads.

    Raises:
        GateError: the logits are worse than rounding to fp16 explains.
        ModelError: the float part cannot be fp16, or ONNX Runtime refuses the model.
    """
    floating, source, indices, threads = images
    before = model.clone()
    graph = to_half_quantized(model, keep)
    with stage("simulating fp16"):
        simulation = Simulation(floating.graph, source, few_of(indices, IMAGES), threads)
        reference, int8 = simulation.logits(floating), simulation.logits(before)
        mixed = simulation.logits(emulated(model))
    found: dict[FloatPrecision, float | None] = {
        "fp32": signal_to_noise_db(reference, int8),
        "fp16": signal_to_noise_db(reference, mixed),
    }
    same = agreement_percent(int8, mixed)
    lost = (found["fp32"] or np.inf) - (found["fp16"] or np.inf) if found["fp16"] is not None else 0.0
    if lost > MOST_LOST_DB:
        raise GateError(
            f"with its float part in fp16 the INT8 model loses {lost:.1f} dB more than rounding explains",
            "use --float-precision fp32; if the weights are trained, report the architecture",
        )
    return FloatPart(graph, found, same, simulation.samples)
