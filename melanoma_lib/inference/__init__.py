"""A trained model on new images: the command `melanoma predict` and the web page."""

import lazy_loader

# Lazily, because torch takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "predictor": [
            "Predictor", "best_bundle", "list_images", "load_predictors", "overlay",
            "predict_files",
        ]
    },
)
