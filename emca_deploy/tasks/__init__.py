"""Tasks of networks; classification is the only one today, and `classification` shows the parts of a task."""
