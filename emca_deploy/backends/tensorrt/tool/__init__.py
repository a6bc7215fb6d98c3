"""trtexec, NVIDIA's command-line tool, where TensorRT's Python bindings are missing."""
