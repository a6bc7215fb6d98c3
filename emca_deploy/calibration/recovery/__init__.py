"""Accuracy recovery after quantization, without training."""
