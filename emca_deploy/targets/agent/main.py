"""The agent's main program: it serves one request, and ends if its connection is lost.

It reads JSON, one message per line, from standard input: first a request, then {"do": "alive"} every few seconds, {"do": "stop"},
and {"do": "done"} once all is fetched. It writes marked lines: "note", "progress", "result" with its files, and "error".
"""

import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import sha256_file
from emca_deploy.errors import EmcaError
from emca_deploy.interrupts import interrupt
from emca_deploy.remote.protocol import COLLECT, PROTOCOL, SILENCE_S, cache_root
from emca_deploy.targets.agent import work
from emca_deploy.targets.agent.run_folder import Run

__all__ = ["main"]

LINGER_S = 20.0
"""Time after a lost connection in which a request has to end by itself."""


class Line:
    """The agent's end of the connection, which counts as lost after `silence_s` without a message.

    `busy` is whether there is work that the loss of the connection interrupts.
    """

    def __init__(self, mark: str) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what runtimes print on standard output goes to the log
        self._mark = mark
        self._lock = threading.Lock()
        self._rest = b""
        self.busy = False
        self.silence_s = SILENCE_S
        self.lost = False
        self.released = threading.Event()

    def say(self, is_: str, **message: Any) -> None:
        """Send a message, unless the connection is lost."""
        text = f"\n{self._mark}{json.dumps({'is': is_, **message})}\n"
        with self._lock:
            try:
                self._out.write(text)
                self._out.flush()
            except (OSError, ValueError):
                self.lost = True

    def say_failed(self, error: OSError, folder: Path) -> None:
        """Send an error of the operating system; `folder` is its path if it has none."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        self.say("failed", error=reason, code=error.errno, path=str(error.filename or folder))

    def watch(self) -> None:
        """Start a thread that listens, and interrupts the main thread to end its work."""
        self.busy = True
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while (message := self.next()) is not None:
            if message.get("do") == "done":
                self.released.set()
                return
            if message.get("do") == "stop":
                self._interrupt()
        self.lost = True
        self.released.set()
        self._interrupt()
        threading.Timer(LINGER_S, os._exit, (1,)).start()

    def _interrupt(self) -> None:
        if self.busy:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def next(self) -> dict[str, Any] | None:
        """Return the next message, or None if the connection is lost."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([0], [], [], self.silence_s)
            piece = os.read(0, 1 << 16) if ready else b""
            if not piece:
                return None
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(text)
        return message


def main(mark: str) -> int:
    """Serve one request and return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    line = Line(mark)
    message = line.next()
    if message is None:
        return 0
    if message.get("protocol") != PROTOCOL:
        line.say("error", kind="WorkerError", problem="another version of the protocol", remedy="use one version on both sides")
        return 1
    line.silence_s = message["silence_s"]
    try:
        with Run(message["run"]) as run:
            line.watch()
            _serve(line, message, run)
    except KeyboardInterrupt:
        line.say("error", kind="KeyboardInterrupt", problem="", remedy="")
    except OSError as error:
        line.say_failed(error, cache_root())
        return 1
    return 0


def _serve(line: Line, message: dict[str, Any], run: Run) -> None:
    name = message["do"]
    try:
        run.link(message["files"])
        document = work.collect(run) if name == COLLECT else work.serve(name, message["request"], run, line.say)
        files = {name: {"path": str(path), "sha256": sha256_file(path)} for name, path in run.made.items()}
        line.busy = False
    except EmcaError as error:
        line.busy = False
        line.say("error", kind=type(error).__name__, problem=error.problem, remedy=error.remedy)
        return
    except OSError as error:
        line.busy = False
        line.say_failed(error, run.folder)
        return
    if not run.until_fetched:  # those files are enough to resume from
        run.keep(document, files)
    line.say("result", document=document, files=files)
    line.released.wait()
    if not line.lost:
        run.forget()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
