"""The history: a store of results over time, and what it says about new ones."""
