"""From results to a terminal table, a page and plots."""
