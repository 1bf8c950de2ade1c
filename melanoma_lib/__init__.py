"""Melanoma detection on HAM10000: the library behind the notebooks."""

__version__ = "0.1.0"
