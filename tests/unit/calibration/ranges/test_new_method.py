"""A new calibration method, as a developer adds one: a file with the class and its observer, and a line in the registry."""

from pathlib import Path

import pytest

from emca_deploy.calibration.calibrate import calibrate_model, ensure_ranges
from emca_deploy.calibration.ranges.methods.registry import METHODS, MethodLine, parse_method, usage
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.errors import InputError
from zoo.recipes import calibration_options

METHOD = '''
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import MinMaxObserver, Observation, TensorRange


class Narrowest(MinMaxObserver):
    """Keeps the narrowest of the images' ranges."""

    def __init__(self):
        super().__init__()
        self._narrowest = None

    def observe(self, minima, maxima):
        super().observe(minima, maxima)
        for low, high in zip(minima.ravel().tolist(), maxima.ravel().tolist()):
            if self._narrowest is None or high - low < self._narrowest[1] - self._narrowest[0]:
                self._narrowest = (low, high)

    def observation(self):
        seen = super().observation()
        return Observation(seen.minimum, seen.maximum, own={"narrowest": self._narrowest})


class NarrowestImage(Method):
    """The narrowest image's range, widened by the parameter."""

    name = "narrowest"
    default = 1.5
    bounds = (1.0, 4.0)
    reuses = False

    def observer(self):
        return Narrowest()

    def range_of(self, seen):
        low, high = seen.own["narrowest"]
        return TensorRange(low * self.parameter, high * self.parameter)
'''


@pytest.fixture(autouse=True)
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "narrowest_method.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "narrowest", MethodLine("narrowest_method:NarrowestImage", "FACTOR"))


def test_it_is_named_and_its_bounds_are_kept() -> None:
    assert usage().endswith(", narrowest[:FACTOR]")
    assert str(parse_method("narrowest")) == "narrowest:1.5"
    with pytest.raises(InputError):
        parse_method("narrowest:5")


def test_it_calibrates_and_what_its_observer_kept_is_on_file(exported, images, tmp_path: Path) -> None:
    model, table = exported("resnet10"), tmp_path / "ranges.json"
    options = calibration_options("openvino", "narrowest:1", samples=3, recover="none", table=table)
    made = calibrate_model(model, images, tmp_path / "int8.onnx", options)
    assert made.method == "narrowest:1.0"
    found = read_table(table)
    assert all(
        seen.own["narrowest"] == (found.ranges[name].minimum, found.ranges[name].maximum)
        for name, seen in found.observations.items()
    )
    assert ensure_ranges(model, images, options)[2]
