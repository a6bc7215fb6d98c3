"""The one place that opens an ONNX file: what it is, what it takes and what it gives."""
