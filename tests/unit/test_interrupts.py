"""A signal ends the program only where that is safe, never during an import or while descriptors are closed by number."""

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


IN_CLOSE = """
import os, signal, sys, time
from emca_deploy.interrupts import interrupt
signal.signal(signal.SIGTERM, interrupt)
close, closed = os.close, []
def close_and_signal(descriptor):
    try:
        close(descriptor)
    except OSError as error:
        print(error)
        raise
    closed.append(descriptor)
    if len(closed) == {last}:
        os.kill(os.getpid(), signal.SIGTERM)
{work}
try:
    run()
    time.sleep(30)
except KeyboardInterrupt:
    print(os.listdir(sys.argv[1]))
"""

FOLDER = """
from pathlib import Path
from emca_deploy.atomic import hidden_folder
def run():
    with hidden_folder(Path(sys.argv[1])) as folder:
        (folder / "inner").mkdir()
        os.close = close_and_signal
"""

PROCESS = """
import subprocess
def run():
    os.close = close_and_signal
    child = subprocess.Popen(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.close = close
    with child:
        pass
"""


@pytest.mark.parametrize(("work", "last"), [(FOLDER, 1), (FOLDER, 2), (PROCESS, 2)], ids=["inner", "outer", "process"])
def test_no_descriptor_is_closed_twice(work, last, tmp_path):
    """An interrupt between the closing of a descriptor and the note that it is closed was reported as a bad file descriptor."""
    program = [sys.executable, "-c", IN_CLOSE.format(work=work, last=last), str(tmp_path)]
    found = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert (found.stdout, found.stderr) == ("[]\n", "")
