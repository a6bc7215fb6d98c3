"""Logging of results on an MLflow server."""
