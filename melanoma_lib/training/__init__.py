"""The training loop, and the training of one architecture from pixels to a bundle."""
