"""Runtimes behind one interface: open a runner, build an engine."""
