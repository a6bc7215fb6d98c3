"""Observing tensors, and choosing the ranges that their integers represent."""
