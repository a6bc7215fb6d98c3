"""Where Q/DQ pairs go, and how they get into a graph."""
