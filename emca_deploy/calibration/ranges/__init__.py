"""What is seen of each tensor, and the range its integers represent."""
