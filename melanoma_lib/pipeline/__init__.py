"""The notebooks executed in order through papermill, the state of a run, and its web pages."""

import lazy_loader

# Lazily, because each is imported only for its own command.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "run": ["plan"],
        "status": ["report"],
        "website": ["build"],
    },
)
