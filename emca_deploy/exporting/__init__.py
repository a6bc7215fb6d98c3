"""Export of a torch module to a checked ONNX file."""
