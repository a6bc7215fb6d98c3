"""OpenVINO with many requests in flight: its THROUGHPUT hint, and as many requests as it says are best."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.backends.base import RunOptions
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.refusal import library_reason

__all__ = ["OvQueue", "offline_options"]


def offline_options(options: RunOptions) -> RunOptions:
    """Return options for throughput: OpenVINO chooses the streams, unless the settings do."""
    return replace(options, settings={"hint": "THROUGHPUT", "streams": "AUTO", **options.settings})


class OvQueue:
    """Requests that share one compiled model and one input.

    Args:
        ov: the library.
        compiled: the model, compiled for throughput.
        batch: images in the model's own layout and type, given to every request.
        path: of the model, for errors.

    Attributes:
        in_flight: requests at once: OpenVINO's OPTIMAL_NUMBER_OF_INFER_REQUESTS.
    """

    def __init__(self, ov: Any, compiled: Any, batch: npt.NDArray[Any], path: Path) -> None:
        self._path = path
        self._queue = ov.AsyncInferQueue(compiled)  # without a number it asks the model for the optimal one
        self._input = np.require(batch, requirements=["C", "A", "W"])
        for request in self._queue:
            request.set_input_tensor(ov.Tensor(self._input, shared_memory=True))
        self._latencies_ns: list[int] = []
        self._queue.set_callback(self._completed)
        self.in_flight = len(self._queue)

    def run(self, seconds: float, min_calls: int, max_calls: int) -> npt.NDArray[np.int64]:
        """Keep all requests busy for some time; see `harness.spec.Saturable.run_offline`.

        Raises:
            ModelError: OpenVINO fails on a request.
        """
        self._latencies_ns = []
        started = 0
        end_ns = perf_counter_ns() + int(seconds * 1e9)
        try:
            while started < min_calls or (started < max_calls and perf_counter_ns() < end_ns):
                self._queue.get_idle_request_id()  # waits for one, so that the wait is not part of the next one's latency
                self._queue.start_async(userdata=perf_counter_ns())
                started += 1
            self._queue.wait_all()
        except RuntimeError as exc:
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try another batch, or another backend"
            ) from exc
        return np.array(self._latencies_ns, dtype=np.int64)

    def _completed(self, _: Any, started_ns: int) -> None:
        self._latencies_ns.append(perf_counter_ns() - started_ns)
