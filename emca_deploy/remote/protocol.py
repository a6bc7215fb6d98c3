"""What both ends of a connection agree on."""

__all__ = ["COLLECT", "PROTOCOL", "RECONNECT_AFTER_S", "SILENCE_S"]

PROTOCOL = 2
"""Version of the messages between the two ends."""
COLLECT = "collect"
"""Asks for what a run kept when its connection was lost."""
SILENCE_S = 12.0
"""Time without a message after which the connection is taken to be lost, even where TCP still thinks otherwise."""
RECONNECT_AFTER_S = (1.0, 4.0, 10.0)
"""Pauses before attempts to connect again after a connection was lost."""
