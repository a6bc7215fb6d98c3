"""A signal ends the program only where that is safe, never during an import."""

import signal
import subprocess
import sys
import time

import pytest

MODULE = """
import os, signal, time
os.kill(os.getpid(), {number})
time.sleep(0.3)
"""

PROGRAM = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
from emca_deploy.interrupts import interrupt
signal.signal({number}, interrupt)
try:
    import interrupted
    assert "interrupted" in sys.modules
    time.sleep(30)
except KeyboardInterrupt:
    print("whole" if "interrupted" in sys.modules else "cut")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_import_is_finished_first(number, tmp_path):
    (tmp_path / "interrupted.py").write_text(MODULE.format(number=int(number)))
    began = time.monotonic()
    program = [sys.executable, "-c", PROGRAM.format(number=int(number)), str(tmp_path)]
    found = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "whole\n", found.stderr
    assert time.monotonic() - began < 20


def test_elsewhere_it_interrupts_at_once():
    from emca_deploy.interrupts import interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
