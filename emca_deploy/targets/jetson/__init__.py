"""A Jetson board as a target: what it is, how fast it is allowed to be, and what it draws."""

__all__: list[str] = []
