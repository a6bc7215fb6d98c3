"""What networks are for: classification is the only task today; see `classification` for what a task consists of."""
