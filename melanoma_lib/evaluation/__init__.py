"""Metrics of predictions with their intervals and tests, calibration, and operating points."""

import lazy_loader

# Lazily, because scipy takes a second to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bootstrap": ["bootstrap_weights", "estimate", "format_estimate"],
        "calibration": ["fit_temperature", "reliability"],
        "operating_points": ["choose_threshold", "operating_curve", "operating_point_estimates"],
        "predictions": ["Predictions", "load_predictions"],
        "significance": ["delong", "holm", "mcnemar"],
        "trained_run": ["load_trained_run"],
    },
)
