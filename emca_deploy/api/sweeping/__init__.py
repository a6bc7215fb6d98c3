"""The parts of `sweep`: its plan, its keys, its folder and the work that cells share."""
