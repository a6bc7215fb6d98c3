"""Free memory from recorded files."""

import os

import pytest

from emca_deploy.machines.memory import available_mib, peak_rss_mib


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  4194304 kB\nMemAvailable:  2097152 kB\n")
    return tmp_path


def test_without_a_limit_the_kernel_says(root):
    assert available_mib(root) == 2048
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    (root / "sys/fs/cgroup/memory.current").write_text("1048576\n")
    assert available_mib(root) == 2048


@pytest.mark.parametrize(("limit_mib", "free"), [(1024, 1023), (8192, 2048), (0, 0)])
def test_a_container_has_its_limit(root, limit_mib, free):
    (root / "sys/fs/cgroup/memory.max").write_text(f"{limit_mib << 20}\n")
    (root / "sys/fs/cgroup/memory.current").write_text("1048576\n")
    assert available_mib(root) == free


def test_where_nothing_tells(tmp_path):
    assert available_mib(tmp_path) is None


def test_the_peak_of_this_process_and_of_none():
    before, found, after = peak_rss_mib(), peak_rss_mib(os.getpid()), peak_rss_mib()  # other threads may allocate too
    assert 1 < 0.99 * before <= found <= 1.01 * after  # the kernel counts pages in batches
    assert peak_rss_mib(2**30) is None
