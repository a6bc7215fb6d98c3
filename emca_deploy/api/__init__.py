"""The Python API: one file an operation, which takes a request and returns a report. Nothing here prints."""
