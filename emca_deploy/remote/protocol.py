"""Protocol between the agent and the machine that sends requests."""

import os
from pathlib import Path

__all__ = [
    "ALIVE_EVERY_S",
    "COLLECT",
    "ENGINE",
    "LOGITS",
    "PROTOCOL",
    "RAW",
    "RECONNECT_AFTER_S",
    "SILENCE_S",
    "ZIP_DATE",
    "cache_root",
]

PROTOCOL = 2
"""Version of the messages between the two ends."""
COLLECT = "collect"
"""Name of the request for what a run kept when its connection was lost."""
RAW, LOGITS, ENGINE = "raw.npz", "logits.npz", "engine"
"""Names of the files that belong to a report."""
SILENCE_S = 12.0
"""Time without a message after which the connection counts as lost, even if TCP has not noticed."""
ALIVE_EVERY_S = 2.0
"""Pause between messages that only keep the connection alive."""
RECONNECT_AFTER_S = (1.0, 4.0, 10.0)
"""Pauses before the attempts to connect again after the connection was lost."""
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of every entry of an archive: the same content gives the same bytes, which are sent only once."""


def cache_root() -> Path:
    """Return the folder on this machine for files that were sent to it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "emca-deploy"
