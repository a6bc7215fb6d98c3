"""The details of a candidate or a cell: its plots, layers, pictures, figures, environment and provenance."""
