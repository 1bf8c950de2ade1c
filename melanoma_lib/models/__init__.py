"""Networks: any architecture of timm, its features, and the bundle to use a trained one."""

import lazy_loader

# Lazily, because torch and timm take seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["ARCHITECTURES", "build_model", "normalisation", "normalise", "to_input"],
        "bundle": ["find_bundles", "load_bundle", "save_bundle"],
        "out_of_distribution": ["ReferenceSet", "fit_reference_set", "load_reference_set"],
    },
)
