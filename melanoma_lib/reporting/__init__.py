"""Results of trained models as tables, figures and LaTeX, and their test on other datasets."""
