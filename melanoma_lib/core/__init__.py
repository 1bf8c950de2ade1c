"""What all rooms use: files, errors, locks, the environment, the log of a run, progress."""

import lazy_loader

# Lazily, because the environment imports torch, which takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "environment": ["device_name", "pick_device"],
        "errors": ["MelanomaError"],
        "files": ["atomic_path", "read_json", "write_csv", "write_json", "write_text"],
    },
)
