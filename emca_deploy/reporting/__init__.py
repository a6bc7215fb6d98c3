"""Reports of results: terminal tables, a page and plots."""
