"""The one place that opens an ONNX file: what it is, what it takes and what it gives."""

from emca_deploy.onnx_file.boundary import graph_errors
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.header import check_onnx_file
from emca_deploy.onnx_file.image import ImageInput
from emca_deploy.onnx_file.logits import LogitsOutput

__all__ = ["ImageInput", "LogitsOutput", "OnnxFile", "check_onnx_file", "graph_errors"]
