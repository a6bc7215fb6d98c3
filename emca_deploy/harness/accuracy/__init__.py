"""Measures accuracy: collects logits, and compares them with labels and with a reference."""
