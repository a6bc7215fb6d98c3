"""The parts of benchmarks/quantization.py."""
