"""TensorRT's own tool, for machines that have TensorRT and no usable Python."""
