"""Finding the layer or tensor where a stage's error comes from."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.ledger.finished import Finished
from emca_deploy.calibration.ledger.pairs import Mode
from emca_deploy.calibration.ledger.parts import power_of
from emca_deploy.calibration.ledger.watching import first_jump, noise_shares, split_values, watch
from emca_deploy.data.sources import ImageSource

__all__ = ["Places"]

_TRIED = 8
"""Layers or tensors that are tried alone on the logits: those with the largest error of their own."""

_EQUAL = 1e-9
"""Noise to signal below which tensors of two float graphs count as equal."""


class Places:
    """Looks for places on a few images, by the errors of single tensors and by stages in one layer alone."""

    def __init__(
        self, reference: ir.Model, finished: Finished, images: tuple[ImageSource, ImageSource], few: Sequence[int], threads: int
    ) -> None:
        """Look on a few images by index; `images` are those of the reference's graph and of the finished model's."""
        self._reference, self._finished, self._few, self._threads = reference, finished, few, threads
        self._of_network, self._of_artifact = images

    def of(self, stage: str) -> tuple[str, str] | None:
        """Return the place where a stage's error comes from, and what happens there; None where none stands out."""
        looks: Mapping[str, Callable[[], tuple[str, str] | None]] = {
            "graph": self._of_graph,
            "fp16": self._of_half,
            "weights": self._of_weights,
            "clipping": lambda: self._of_pairs("clip"),
            "rounding": lambda: self._of_pairs("round"),
        }
        return looks[stage]() if stage in looks else None

    def of_runtime(self, source: ImageSource, run: Callable[[ir.Model], Float32Array]) -> tuple[str, str] | None:
        """Return the first tensor that the runtime computes otherwise for images; `run` returns watched values from it."""
        model = self._finished.model.clone()
        names = [self._finished_name(name) for name in self._finished.pairs]
        sizes = watch(model, [name for name in names if name is not None])
        wanted = Simulation(model.graph, source, self._few, self._threads).logits(model)
        shares = noise_shares(split_values(wanted, sizes), split_values(run(model), sizes))
        return self._jump(shares, "the first tensor that the runtime computes otherwise")

    def _of_graph(self) -> tuple[str, str] | None:
        layers = self._finished.layers
        foreign = [layer for layer in layers.values() if layer.foreign]
        if foreign:
            worst = max(foreign, key=lambda layer: layer.foreign)
            return worst.name, f"{100 * worst.foreign:.2g}% of its weights' power is not the reference's"
        if self._finished.foreign_biases:
            name = max(self._finished.foreign_biases, key=lambda each: layers[each].shift)
            return name, "its bias is not the reference's, and no correction of rounding"
        return self._first_difference(
            self._reference, self._of_network, self._finished.form("off", rounded=(), half=False), "the first tensor that differs"
        )

    def _of_half(self) -> tuple[str, str] | None:
        before, after = (self._finished.form("off", rounded=(), half=half) for half in (False, True))
        return self._first_difference(before, self._of_artifact, after, "the first tensor that float16 changes")

    def _of_weights(self) -> tuple[str, str] | None:
        ranked = sorted(self._finished.layers.values(), key=lambda layer: layer.rounding, reverse=True)[:_TRIED]
        base = self._finished.form("off", rounded=())
        found = self._alone(base, {layer.name: self._finished.form("off", rounded=(layer.name,)) for layer in ranked})
        if found is None:
            return None
        layer = self._finished.layers[found]
        return found, f"its weights keep {_decibels(layer.rounding):.1f} dB"

    def _of_pairs(self, mode: Mode) -> tuple[str, str] | None:
        shares = self._local[mode]
        ranked = [name for name in sorted(shares, key=lambda each: shares[each], reverse=True)[:_TRIED] if shares[name] > 0]
        forms = {name: self._finished.form("off", alone={name: mode}) for name in ranked}
        found = self._alone(self._finished.form("off"), forms)
        if found is None:
            return None
        pair = self._finished.pairs[found]
        did = "clipped to" if mode == "clip" else "rounded over"
        return (
            pair.name,
            f"{did} {float(pair.low.min()):.3g} to {float(pair.high.max()):.3g}, keeps {_decibels(shares[found]):.1f} dB",
        )

    @cached_property
    def _local(self) -> Mapping[Mode, Mapping[str, float]]:
        """The error of each pair alone, relative to its tensor, on the values of the model with rounded weights."""
        model = self._finished.form("off")
        names = {name: pair.name for name, pair in self._finished.pairs.items()}
        sizes = watch(model, list(dict.fromkeys(names.values())))
        values = split_values(Simulation(model.graph, self._of_artifact, self._few, self._threads).logits(model), sizes)
        found: dict[Mode, dict[str, float]] = {"clip": {}, "round": {}}
        for name, pair in self._finished.pairs.items():
            given = values.get(names[name])
            if given is None or pair.step.size != 1:
                continue
            clipped = np.clip(given, pair.low, pair.high)
            steps = np.maximum(pair.step, np.float32(1e-30))
            rounded = np.rint(clipped / steps) * steps
            signal = float(np.square(given, dtype=np.float64).sum()) or 1.0
            found["clip"][name] = power_of(given, clipped) / signal
            found["round"][name] = power_of(rounded, clipped) / signal
        return found

    def _alone(self, base: ir.Model, forms: Mapping[str, ir.Model]) -> str | None:
        """Return the name of the form whose logits are farthest from the base's."""
        images = Simulation(self._finished.model.graph, self._of_artifact, self._few, self._threads)
        wanted = images.logits(base)
        errors = {name: power_of(images.logits(form), wanted) for name, form in forms.items()}
        return max(errors, key=lambda name: errors[name]) if errors and max(errors.values()) > 0 else None

    def _first_difference(self, before: ir.Model, source: ImageSource, after: ir.Model, words: str) -> tuple[str, str] | None:
        """Return the first tensor of the same name in both graphs that differs."""
        first, second = before.clone(), after.clone()
        theirs = {name for name, _ in watch(after.clone(), _tensors(after))}
        names = [name for name, _ in watch(before.clone(), _tensors(before)) if name in theirs]
        sizes = watch(first, names)
        watch(second, names)
        wanted = Simulation(first.graph, source, self._few, self._threads).logits(first)
        given = Simulation(second.graph, self._of_artifact, self._few, self._threads)
        values = np.concatenate([tensors[0] for tensors in given.outputs(second)])  # not `logits`, which must be finite
        shares = noise_shares(split_values(wanted, sizes), split_values(values, sizes))
        largest = max(shares.values(), default=0.0)
        least = max(_EQUAL, largest / 1000) if np.isfinite(largest) else 1.0
        name = next((name for name, share in shares.items() if share > least), None)
        return None if name is None else (name, f"{words}, with {_decibels(shares[name]):.1f} dB")

    def _jump(self, shares: Mapping[str, float], words: str) -> tuple[str, str] | None:
        found = first_jump(shares)
        return None if found is None else (found[0], f"{words}, with {_decibels(found[1]):.1f} dB")

    def _finished_name(self, integers: str) -> str | None:
        """Return the tensor behind a pair's DequantizeLinear, as the file names it."""
        for node in self._finished.model.graph:
            if node.op_type == "DequantizeLinear" and node.inputs[0] is not None and node.inputs[0].name == integers:
                return str(node.outputs[0].name)
        return None


def _tensors(model: ir.Model) -> list[str]:
    return [str(value.name) for node in model.graph for value in node.outputs]


def _decibels(share: float) -> float:
    """Return a noise to signal ratio as the ratio of signal to noise in decibels."""
    return float(-10 * np.log10(share)) if 0 < share < np.inf else (150.0 if share == 0 else -150.0)
