"""Jetson boards: their facts, power modes, clocks and sensors."""
