"""What every test needs."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let Ctrl-C reach the processes that tests start: a background job inherits it ignored, and passes that on."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
