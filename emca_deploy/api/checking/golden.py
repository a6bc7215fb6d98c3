"""Golden images of a bundle: files, what preprocessing makes of them, and the logits, to compare a program's with."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from emca_deploy.api.load_bundle import load_bundle
from emca_deploy.arrays import Float32Array
from emca_deploy.bundles.contents import Contents
from emca_deploy.data.checking.probes import Probe, probes
from emca_deploy.data.checking.steps import Geometry, Steps
from emca_deploy.errors import EmcaError
from emca_deploy.results.bundle import BundleVariant

__all__ = ["golden_files"]

_FOLDER = "golden"


def golden_files(contents: Contents) -> Mapping[str, bytes]:
    """Return the bytes of each file by its name in the bundle; none where the preprocessing is unknown.

    "golden/images" has the images. "crops.npy" has their pixels at the size of the input, (images, height, width, channels)
    uint8 in RGB or gray, before channels are put in order and values are scaled. "logits.npy" has the logits, (images, classes)
    float32, of the variant that "golden.json" names; it is left out where no classifier of the bundle runs here.
    """
    used = contents.preprocessing
    if used is None:
        return {}
    images, geometry = probes(used), Geometry.of(used)
    crops = np.stack([np.round(geometry.pixels(image.opened())).astype(np.uint8) for image in images])
    found = {f"{_FOLDER}/images/{image.name}": image.content for image in images}
    found[f"{_FOLDER}/crops.npy"] = _npy(crops)
    variant, logits = _logits(contents, images)
    if logits is not None:
        found[f"{_FOLDER}/logits.npy"] = _npy(logits)
    facts = {"images": [image.name for image in images], "logits_of": None if variant is None else variant.name}
    found[f"{_FOLDER}/golden.json"] = (json.dumps(facts, indent=1) + "\n").encode()
    return found


def _logits(contents: Contents, images: tuple[Probe, ...]) -> tuple[BundleVariant | None, Float32Array | None]:
    """Return the variant with the highest precision that runs here, and its logits."""
    models = [variant for variant in contents.variants if variant.kind == "onnx"]
    for variant in sorted(models, key=lambda each: each.precision != "fp32"):
        try:
            with load_bundle(contents.files[variant.file], threads=1, untuned=True) as model:
                right = Steps.of(model.preprocessing, interleaved=model.takes_channels_last)
                inputs = [right.tensor(image.opened(), right, model.input.dtype) for image in images]
                return variant, np.concatenate([model.logits(each) for each in inputs])
        except EmcaError:
            continue  # no runtime for it on this machine, or a detector
    return None, None


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
