"""Finding the placement that is fastest on a machine, by measuring."""
