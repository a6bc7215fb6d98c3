"""Times of a runtime's layers, joined with the nodes of the model."""
