"""Estimates, intervals and comparisons of measured values."""
