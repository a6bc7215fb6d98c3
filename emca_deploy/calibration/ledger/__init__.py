"""Splits the error of a quantized model over the stages that cause it."""
