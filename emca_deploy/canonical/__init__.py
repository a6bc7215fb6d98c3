"""The canonical graph of an ONNX file from any exporter: equal networks are then quantized equally."""
