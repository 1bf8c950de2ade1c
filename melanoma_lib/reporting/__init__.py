"""Results of trained models as tables, figures and LaTeX, and their test on other datasets."""

import lazy_loader

# Lazily, because matplotlib takes a second to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "figures": ["plot", "save"],
        "leakage": ["paired_leakage", "price_of_leakage"],
        "run": ["open_run", "open_trained"],
        "summary": ["summarize"],
        "table_formats": ["write_tables"],
    },
)
