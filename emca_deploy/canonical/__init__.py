"""One canonical graph of whatever ONNX file an exporter wrote, so that equal networks are quantized equally."""
