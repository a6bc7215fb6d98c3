"""Rewrites of a quantized graph, exact in real arithmetic, that make a backend faster."""
