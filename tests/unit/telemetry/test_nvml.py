"""NVML without a driver, and values that a reading leaves out."""

from types import SimpleNamespace

import pytest
from refusals import refusing

from emca_deploy._machine import find_gpus
from emca_deploy.errors import MissingError
from emca_deploy.telemetry.nvml import READERS, NvmlSource, read_values


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
def test_no_driver():
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    with refusing(MissingError, "NVML") as caught, NvmlSource("0000:01:00.0"):
        pass
    assert "driver" in caught.value.remedy


def test_everything_that_is_asked_exists():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for reader in READERS.values():
        assert [
            name for name in reader.__code__.co_names if name.startswith(("nvml", "NVML")) and not hasattr(pynvml, name)
        ] == []
    for name in ("nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetHandleByPciBusId"):
        assert hasattr(pynvml, name)


def test_what_a_gpu_does_not_tell_is_absent_and_not_zero():
    class NotSupported(Exception):
        pass

    def refuse(*arguments):
        raise NotSupported

    names = {name for reader in READERS.values() for name in reader.__code__.co_names if name.startswith(("nvml", "NVML"))}
    nvml = SimpleNamespace(**dict.fromkeys(names, refuse), NVMLError=NotSupported)
    nvml.NVML_TEMPERATURE_GPU = nvml.NVML_CLOCK_SM = nvml.NVML_CLOCK_MEM = 0
    assert read_values(nvml, None) == {}
    nvml.nvmlDeviceGetPowerUsage = lambda gpu: 71_500
    nvml.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(used=3 << 20)
    nvml.nvmlDeviceGetUtilizationRates = lambda gpu: SimpleNamespace(gpu=0)
    assert read_values(nvml, None) == {"power_w": 71.5, "memory_used_mib": 3.0, "utilization_percent": 0.0}
