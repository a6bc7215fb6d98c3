"""The TensorRT family: `tensorrt` and `tensorrt-rtx` behind one builder."""

__all__: list[str] = []
