"""The ledger of a finished model's error: its graph is run with one stage more each time, from the reference to the engine.

The forms run on ONNX Runtime in float arithmetic (see `calibration.graphs.simulation`), the same on every processor. What the
engine returns beyond the last of them is the runtime's own. Biases that compensate rounding come with the last of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from emca_deploy._progress import Counter
from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.ledger.finished import Finished
from emca_deploy.calibration.ledger.parts import add_up, power_of, with_places
from emca_deploy.calibration.ledger.places import Places
from emca_deploy.data.sources import ImageSource
from emca_deploy.results.ledger import DropLedger

__all__ = ["Ledger", "Watched"]

Watched = Callable[[ir.Model, Sequence[int]], Float32Array]
"""Runs a model with watched values on the engine's runtime for images by index, and returns them, (N, values) float32."""

_AT_ONCE = 96
"""Images in memory at a time, as input of up to three forms of the network."""

_FEW, _BIASES = 24, 8
"""Images on which a place is looked for, and layers whose biases are tried."""

_SMALLEST_SHIFT = 1e-3
"""Power of a bias's difference, relative to the bias's own, below which it is left with the rounding."""

_WORSE = 0.9
"""A bias is another network's where the reference's bias leaves less than this share of the error's power."""

_NAMED = 2.0
"""Smallest share of the error in percent for which a place is looked for."""


@dataclass(frozen=True)
class Ledger:
    """Two models and the images that they were measured on.

    Attributes:
        reference: Canonical graph of the reference.
        finished: The artifact's graph beside it.
        of_reference: Images as the reference takes them.
        of_network: Images as the artifact's network takes them, by the artifact's own preprocessing.
        of_artifact: Images as the artifact's file takes them: pixels, where it normalizes them itself.
        threads: Threads of ONNX Runtime.
        centred: Whether one of the models returns probabilities, whose logits are known but for a constant.
    """

    reference: ir.Model
    finished: Finished
    of_reference: ImageSource
    of_network: ImageSource
    of_artifact: ImageSource
    threads: int
    centred: bool = False

    def measure(
        self, indices: Sequence[int], ends: tuple[Float32Array, Float32Array], labels: Int64Array | None, count: Counter
    ) -> DropLedger:
        """Return the ledger of images by index, whose logits the reference and the engine gave: `ends`, (N, classes) float32.

        Raises:
            ModelError: ONNX Runtime refuses a form of the graph.
            DataError: an image cannot be read.
        """
        forms = self._forms(self.finished)
        chunks = [list(indices[start : start + _AT_ONCE]) for start in range(0, len(indices), _AT_ONCE)]
        parts = [self._after(forms, chunk, count) for chunk in chunks]
        after = [(name, np.concatenate([part[name] for part in parts])) for name in parts[0]]
        first, last = ends
        rows = [(name, self._comparable(logits)) for name, logits in (*after, ("runtime", last))]
        return add_up(self._comparable(first), rows, labels)

    def locate(self, ledger: DropLedger, indices: Sequence[int], watched: Watched, count: Counter) -> DropLedger:
        """Return a ledger of these images with the places of its stages, and count each stage; raises as `measure`."""
        few = few_of(indices, _FEW)
        places = Places(self.reference, self.finished, self._matched, few, self.threads)
        found: dict[str, tuple[str, str] | None] = {}
        for stage in ledger.stages:
            if stage.share_percent < _NAMED:
                pass
            elif stage.name == "preprocessing":
                found[stage.name] = _changed_steps(self.of_reference, self.of_network)
            elif stage.name == "runtime":
                found[stage.name] = places.of_runtime(self.of_artifact, lambda model: watched(model, few))
            else:
                found[stage.name] = places.of(stage.name)
            count(1)
        return with_places(ledger, found)

    def _comparable(self, logits: Float32Array) -> Float32Array:
        return logits - logits.mean(axis=1, keepdims=True) if self.centred else logits

    def _forms(self, finished: Finished) -> Mapping[str, ir.Model]:
        """Return the forms of the artifact's graph by the stage that they add."""
        forms = {"graph": finished.form("off", rounded=(), half=False)}
        if finished.has_half:
            forms["fp16"] = finished.form("off", rounded=())
        forms |= {"weights": finished.form("off")}
        if finished.pairs:
            forms["clipping"] = finished.form("clip")
        return forms | {"rounding": finished.model}

    @property
    def _takes_pixels(self) -> bool:
        """Whether the artifact normalizes its input itself, so that only its network's preprocessing is the reference's."""
        return self.of_artifact is not self.of_network

    @property
    def _matched(self) -> tuple[ImageSource, ImageSource]:
        """The images for the reference's graph and for the artifact's that have the same preprocessing."""
        return (self.of_network, self.of_artifact) if self._takes_pixels else (self.of_reference, self.of_reference)

    def _after(self, forms: Mapping[str, ir.Model], chunk: Sequence[int], count: Counter) -> dict[str, Float32Array]:
        """Return the logits of some images after each stage but the runtime."""
        same = self.of_network.preprocessing.identity() == self.of_reference.preprocessing.identity()
        found = {"export": self._run(self.reference, self.of_reference, chunk)}
        if self._takes_pixels:
            found["preprocessing"] = found["export"] if same else self._run(self.reference, self.of_network, chunk)
        own = Simulation(self.finished.model.graph, self._matched[1], chunk, self.threads)
        for name, form in forms.items():
            found[name] = own.logits(form)
        if not self._takes_pixels:  # last, because a model in INT8 clips the values that a wrong scale of pixels gives
            last = found[list(forms)[-1]]
            found["preprocessing"] = last if same else self._run(self.finished.model, self.of_artifact, chunk)
        count(len(chunk))
        return found

    def _run(self, model: ir.Model, source: ImageSource, chunk: Sequence[int]) -> Float32Array:
        return Simulation(model.graph, source, chunk, self.threads).logits(model)

    def with_foreign_biases(self, indices: Sequence[int]) -> "Ledger":
        """Return it with the layers whose bias makes the logits of these images worse than the reference's would."""
        few, layers = few_of(indices, _FEW), self.finished.layers.values()
        shifted = [layer for layer in layers if layer.shift > _SMALLEST_SHIFT and layer.bias is not None]
        largest = sorted(shifted, key=lambda layer: layer.shift, reverse=True)[:_BIASES]
        found = {layer.name for layer in shifted if layer.foreign}
        if largest:
            wanted = self._run(self.reference, self._matched[0], few)
            own = Simulation(self.finished.model.graph, self._matched[1], few, self.threads)
            whole = power_of(own.logits(self.finished.model), wanted)
            with_others = {layer.name: own.logits(self.finished.with_bias_of_reference(layer.name)) for layer in largest}
            found |= {name for name, logits in with_others.items() if power_of(logits, wanted) < _WORSE * whole}
        return replace(self, finished=replace(self.finished, foreign_biases=frozenset(found)))


def _changed_steps(before: ImageSource, after: ImageSource) -> tuple[str, str] | None:
    """Return the steps of preprocessing that differ, and their values."""
    ours, theirs = before.preprocessing.identity(), after.preprocessing.identity()
    names = [name for name in ours if ours[name] != theirs.get(name)]
    if not names:
        return None
    return ", ".join(names), "; ".join(f"{name}: {ours[name]} became {theirs.get(name)}" for name in names)
