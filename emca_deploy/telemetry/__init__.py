"""Power, clocks, loads and temperatures during a run; a file for each source."""

__all__: list[str] = []
