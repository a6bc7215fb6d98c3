"""From a torch module to a checked ONNX file."""
