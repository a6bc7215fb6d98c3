"""The agent: what runs on the far side of a connection, and leaves nothing behind when that is gone.

It reads JSON, one message a line, from standard input: first a request, then {"do": "alive"} every few seconds, {"do": "stop"},
and {"do": "done"} once all is at home. It writes marked lines: "note", "progress", "result" with the files that belong to it,
and "error".
"""

import hashlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emca_deploy.errors import EmcaError
from emca_deploy.targets.agent import work as agent_work
from emca_deploy.targets.agent.run_folder import Run

__all__ = ["PROTOCOL", "main"]

PROTOCOL = 1
SILENCE_S = 12.0
"""Without a word from home the line is taken to be down, even where TCP still thinks otherwise; home says how long that is."""
KEPT = ("profile", "build", "collect")
"""Work whose result waits for home where the line went down; `validate` keeps its logits elsewhere."""
LINGER_S = 20.0
"""After that, what does not end by itself is ended."""


class Line:
    """The agent's end of the line.

    Attributes:
        silence_s: without a word from home, after which it is taken to be gone.
        lost: whether home is gone.
        released: set once home has everything, or is gone.
    """

    def __init__(self, mark: str) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what a runtime prints on standard output is for the log
        self._mark = mark
        self._lock = threading.Lock()
        self._rest = b""
        self._busy = False
        self.silence_s = SILENCE_S
        self.lost = False
        self.released = threading.Event()

    def say(self, is_: str, **message: Any) -> None:
        """Send a message; nothing happens where home is gone."""
        text = f"\n{self._mark}{json.dumps({'is': is_, **message})}\n"
        with self._lock:
            try:
                self._out.write(text)
                self._out.flush()
            except (OSError, ValueError):
                self.lost = True

    def request(self) -> dict[str, Any] | None:
        """Return the first message."""
        return self._next()

    def watch(self) -> None:
        """Listen from now on, in a thread; an interrupt of the main thread is what it does where work has to end."""
        self._busy = True
        threading.Thread(target=self._listen, daemon=True).start()

    def finished(self) -> None:
        """Say that there is no work to be interrupted any more."""
        self._busy = False

    def _listen(self) -> None:
        while (message := self._next()) is not None:
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
        if self._busy:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _next(self) -> dict[str, Any] | None:
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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    line = Line(mark)
    request = line.request()
    if request is None:
        return 0
    if request.get("protocol") != PROTOCOL:
        line.say("error", kind="WorkerError", problem="another version of the protocol", remedy="use one version on both sides")
        return 1
    line.silence_s = request.get("silence_s", SILENCE_S)
    try:
        with Run(request["run"]) as run:
            line.watch()
            _serve(line, request, run)
    except KeyboardInterrupt:
        line.say("error", kind="KeyboardInterrupt", problem="", remedy="")
        return 0
    return 0


def _serve(line: Line, request: dict[str, Any], run: Run) -> None:
    try:
        work: Callable[..., dict[str, Any]] = agent_work.WORK[request["do"]]
        run.place(request["files"])
        document = work(request, run, line.say)
        line.finished()
    except EmcaError as error:
        line.finished()
        kind = type(error).__name__
        line.say("error", kind=kind, problem=error.problem, remedy=error.remedy)
        return
    except OSError as error:
        line.finished()
        line.say("failed", error=os.strerror(error.errno or 0), code=error.errno, path=str(error.filename or run.folder))
        return
    files = {name: _described(run.folder / name) for name in run.made}
    if request["do"] in KEPT:
        run.keep(document, files)
    line.say("result", document=document, files=files)
    line.released.wait()
    if not line.lost:
        run.forget()


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return {"path": str(path), "sha256": digest.hexdigest(), "size": path.stat().st_size}
