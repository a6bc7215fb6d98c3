"""Fixtures for the tests of networks."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Run small networks on one thread: more threads only wait for each other."""

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all tests of a module: hypothesis runs many examples within a test."""
    return tmp_path_factory.mktemp("checkpoints")
