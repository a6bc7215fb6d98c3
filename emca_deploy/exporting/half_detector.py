"""Converts an fp32 detector to fp16: its convolutions and heads, but not what decodes, crops and selects boxes.

Coordinates of boxes need more than fp16's 11 binary digits: above 1,024 pixels its numbers are 1 pixel apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.errors import GateError
from emca_deploy.exporting.detection_parity import MatchedDetections, Tolerances, match_detections, measure_dense
from emca_deploy.exporting.half import HalfConversion, to_half
from emca_deploy.exporting.half_layers import attention_nodes, beyond_range
from emca_deploy.exporting.half_parity import emulated, half_tolerance, peaks_and_outputs, roundings
from emca_deploy.exporting.parity import outputs_by_name
from emca_deploy.results.codec import to_json

__all__ = ["HALF_TOLERANCES", "HalfDetector", "convert_detector"]

BOXES = "post."
"""Beginning of the names of nodes that decode, crop and select boxes."""

REASON = "boxes and their selection"

HALF_TOLERANCES = Tolerances(score=0.02, box_px=1.0, mask=0.05)
"""Errors up to which a detection of the fp16 file counts as the fp32 file's; a report, not a gate."""


@dataclass(frozen=True)
class HalfDetector(HalfConversion):
    """The conversion of a detector, whose parity is that of its dense outputs.

    Attributes:
        found: Detections of the fp32 file that the fp16 file has too; None for a dense part.
        allowed: Differences up to which two detections are the same one.
    """

    found: MatchedDetections | None = None
    allowed: Tolerances = HALF_TOLERANCES

    def to_dict(self) -> dict[str, Any]:
        """Return the record for a manifest."""
        return {**super().to_dict(), "found": to_json(self.found)}


def convert_detector(model: ir.Model, images: Float32Array, dense: tuple[str, ...], threshold: float) -> HalfDetector:
    """Convert an fp32 detector to fp16 in place, and compare the two on images (N, 3, H, W) float32.

    Args:
        model: Detector with its dense outputs, and with its detections unless it is a dense part.
        images: Images for the range of the activations and for the comparison.
        dense: Names of the dense outputs.
        threshold: Score that a detection must exceed.

    Raises:
        GateError: a dense output in fp16 differs by more than rounding explains, or is not finite.
        ModelError: no layer fits fp16, or ONNX Runtime does not run the model.
    """
    peaks, expected = peaks_and_outputs(model, images)
    selecting = {node: REASON for node in model.graph if str(node.name).startswith(BOXES)}
    graph = to_half(model, beyond_range(model.graph, peaks) | attention_nodes(model.graph) | selecting)
    actual = outputs_by_name(ir.to_proto(emulated(model)).SerializeToString(), images)
    count = roundings(model.graph)
    gate = half_tolerance(count, sum(expected[name].size for name in dense))
    before, after = (_by_kind(outputs, dense) for outputs in (expected, actual))
    name, parity = measure_dense(before, after, list(before))
    if not parity.max_rel <= gate:  # also true of NaN
        raise GateError(
            f"the fp16 outputs {name}N differ from the fp32 ones by {parity.max_rel:.2g} relative, more than {gate:.2g}",
            "use --precision fp32; if the weights are a trained network's, report the architecture and versions",
        )
    if "scores" not in expected:
        return HalfDetector(graph, parity, gate, count)
    if not all(np.isfinite(actual[name]).all() for name in ("boxes", "scores")):
        raise GateError("a box or score of the fp16 file is infinite or NaN", "use --precision fp32")
    return HalfDetector(graph, parity, gate, count, match_detections(expected, actual, threshold, HALF_TOLERANCES))


def _by_kind(outputs: Mapping[str, Float32Array], dense: tuple[str, ...]) -> dict[str, Float32Array]:
    """Return the dense outputs of all levels together, (N, values): a coarse level alone has too few for its largest to count."""
    kinds: dict[str, list[Float32Array]] = {}
    for name in dense:
        kinds.setdefault(name.rstrip("0123456789"), []).append(outputs[name].reshape(len(outputs[name]), -1))
    return {kind: np.concatenate(levels, axis=1) for kind, levels in kinds.items()}
