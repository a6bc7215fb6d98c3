"""Sources of images, and their preprocessing to the network's input."""
