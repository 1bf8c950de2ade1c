"""Results of trained models as tables, figures and LaTeX, and their test on other datasets."""

import lazy_loader

# Lazily, because matplotlib takes a second to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compare": ["price_of_leakage"],
        "figures": ["plot", "save"],
        "run": ["open_run", "open_trained"],
        "tables": ["summary", "write_tables"],
    },
)
