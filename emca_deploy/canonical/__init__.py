"""One canonical graph of whatever ONNX file an exporter wrote, so that equal networks are quantized equally."""

from emca_deploy.canonical.canonicalize import CANONICAL_VERSION, CanonicalModel, canonical_model
from emca_deploy.canonical.marks import channels_last, label_of, logits_value

__all__ = ["CANONICAL_VERSION", "CanonicalModel", "canonical_model", "channels_last", "label_of", "logits_value"]
