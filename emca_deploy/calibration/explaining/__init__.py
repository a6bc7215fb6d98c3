"""Explaining which layers of a quantized model a backend runs in INT8, and why not the others."""
