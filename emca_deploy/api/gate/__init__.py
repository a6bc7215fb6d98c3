"""Calibration within an accuracy gate: what to leave in float, one part after the other."""
