"""From an fp32 ONNX file to INT8 ones, one placement a backend."""
