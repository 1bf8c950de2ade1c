"""Metrics of predictions with their intervals and tests, calibration, and operating points."""
