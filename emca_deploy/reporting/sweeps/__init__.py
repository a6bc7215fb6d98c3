"""The report of a sweep: its page, its plots, and its words."""
