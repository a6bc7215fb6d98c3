"""Runner for OpenVINO's own file format, which NNCF writes; it compiles and runs exactly as ours does."""

from pathlib import Path

import openvino

from emca_deploy.backends.base import ModelIo, RunOptions
from emca_deploy.backends.openvino import runner as ov

__all__ = ["IrRunner", "open_runner"]


class IrRunner(ov.OvRunner):
    """Runner of an .xml with its .bin on the CPU."""

    def open(self) -> None:
        """Load the model. Sets `input` and `output`."""
        compiled, self._boundary = ov.compile_onnx(openvino, self._path, self._options)
        self.input, self.output = self._boundary.input, self._boundary.output
        self._compiled, self._request = compiled, compiled.create_infer_request()
        self._tensor = openvino.Tensor


def open_runner(artifact: str, threads: int) -> IrRunner:
    """Return the unopened runner."""
    return IrRunner(str(Path(artifact)), RunOptions(threads=threads, io=ModelIo(layout="NCHW")))
