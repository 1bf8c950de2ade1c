"""What predictions are worth: metrics, intervals, tests, calibration, and operating points."""
