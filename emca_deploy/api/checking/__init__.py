"""The images that a program's own preprocessing is compared on, and the comparison."""
