"""What every test needs."""

import ctypes
import signal

import pytest

LIBM = ctypes.CDLL("libm.so.6")


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let Ctrl-C reach the processes that tests start: a background job inherits it ignored, and passes that on."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def float_environment():
    """Give each test the processor's float state as it was: ONNX Runtime's `flush_denormals` changes the calling thread.

    It does so for the first session of a process only, so that which test suffers would depend on their order.
    """
    state = ctypes.create_string_buffer(256)  # fenv_t has 32 bytes on x86-64, 8 on aarch64
    LIBM.fegetenv(state)
    yield
    LIBM.fesetenv(state)
