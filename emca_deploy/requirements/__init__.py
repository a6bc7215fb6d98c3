"""Requirements on results: reads the results, estimates each figure with its interval, and decides."""
