"""Measures latency: worker processes, rounds, stopping, and what is made of the samples."""
