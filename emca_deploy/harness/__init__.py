"""Measuring: latency, accuracy, the machine, and results as versioned JSON."""
