"""Training: the loop, and one architecture from pixels to a bundle."""
