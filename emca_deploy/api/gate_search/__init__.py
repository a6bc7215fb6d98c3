"""Calibration within an accuracy gate."""
