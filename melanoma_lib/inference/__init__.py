"""One trained model at work on new images: the command `predict` and the web page."""
