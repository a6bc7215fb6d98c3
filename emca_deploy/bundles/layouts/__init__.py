"""Folders that model servers load: one file a server, listed in `registry`."""
