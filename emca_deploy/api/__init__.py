"""The Python API: one module per operation, which takes a request and returns a report and prints nothing."""
