"""Per-layer times as each runtime tells them; one file a runtime."""

__all__: list[str] = []
