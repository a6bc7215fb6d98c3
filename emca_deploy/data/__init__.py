"""Where images come from and how they become the network's input."""
