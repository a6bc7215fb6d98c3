"""What a device says of itself while it works; a file for each source."""

__all__: list[str] = []
