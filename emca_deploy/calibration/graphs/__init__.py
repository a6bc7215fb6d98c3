"""Reading an ONNX graph, and running it for its inner tensors."""
