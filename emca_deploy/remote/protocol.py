"""What both ends of a connection agree on."""

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
"""Asks for what a run kept when its connection was lost."""
RAW, LOGITS, ENGINE = "raw.npz", "logits.npz", "engine"
"""Names of the files that belong to a report."""
SILENCE_S = 12.0
"""Time without a message after which the connection is taken to be lost, even where TCP still thinks otherwise."""
ALIVE_EVERY_S = 2.0
"""Pause between the messages of one end that has nothing to say."""
RECONNECT_AFTER_S = (1.0, 4.0, 10.0)
"""Pauses before attempts to connect again after a connection was lost."""
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of every entry of an archive: the same content gives the same bytes, which are then there already."""


def cache_root() -> Path:
    """Return the folder of this machine that holds what was sent to it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "emca-deploy"
