"""Class activation maps (Grad-CAM, LayerCAM), their scores, and images with parts hidden."""

import lazy_loader

# Lazily, because tables and figures read scores without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gradcam": ["heat_maps"],
        "map_metrics": ["read_scores"],
        "score_maps": ["score_heat_maps"],
    },
)
