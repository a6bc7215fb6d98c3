"""Placement of Q/DQ pairs, and their insertion into a graph."""
