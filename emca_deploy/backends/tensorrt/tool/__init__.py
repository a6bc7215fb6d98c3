"""trtexec, TensorRT's command-line tool, for machines without TensorRT's Python package."""
