"""Calibration: from an fp32 ONNX file to INT8 ones, one placement per backend."""
