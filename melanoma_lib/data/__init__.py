"""The dataset: its table and files, the split, pixels, augmentation, and the generated sample."""

import lazy_loader

# Lazily, because tables and figures are made without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classes": ["CLASS_NAMES", "DIAGNOSES", "MELANOMA"],
        "dataset_files": ["DatasetFiles", "open_dataset"],
        "images": ["decode", "read_image", "read_mask"],
        "split": ["make_split", "split_rows"],
        "synthetic": ["generate_sample"],
        "torch_dataset": ["HAM10000Dataset", "loader"],
        "validate": ["validate_dataset"],
    },
)
