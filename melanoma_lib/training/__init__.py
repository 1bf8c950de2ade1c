"""The training loop, and the training of one architecture from pixels to a bundle."""

import lazy_loader

# Lazily, because torch takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "loop": ["fit", "train_epoch", "train_step", "validate"],
        "train": ["train_architecture"],
    },
)
