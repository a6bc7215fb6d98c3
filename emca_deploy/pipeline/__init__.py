"""Where `deploy` measures."""
