"""Finds out how somebody's preprocessing differs from what a model needs."""
