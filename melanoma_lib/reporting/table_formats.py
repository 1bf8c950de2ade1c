"""Tables as CSV, LaTeX and Markdown."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from melanoma_lib.core.files import write_csv, write_text
from melanoma_lib.core.provenance import last_line
from melanoma_lib.evaluation.bootstrap import format_value
from melanoma_lib.reporting.summary import describe_results
from melanoma_lib.reporting.tables import Table, all_tables

WIDEST = 18  # letters in a line of a table


def table_file(name: str) -> str:
    """The path of a table in a run folder, without suffix."""
    return name if name == "comparison_table" else f"tables/{name}"


def write_tables(results: dict, folder: Path) -> list[Path]:
    """Writes every table of the results as CSV (numbers) and LaTeX; needs the package booktabs."""
    paths = []
    for name, table in all_tables(results).items():
        rows, path = [_flat(row) for row in table.rows], folder / table_file(name)
        tabular = latex_tabular(table, describe_results(results)) + last_line(".tex")
        paths += [
            write_csv(path.with_suffix(".csv"), rows, list(table.heads), last_line(".csv")),
            write_text(path.with_suffix(".tex"), tabular),
        ]
    return paths


def _flat(row: Mapping) -> dict:
    """A row in which an estimate is three columns: its name, and with `_low` and `_high`."""
    flat: dict = {}
    for name, value in row.items():
        if isinstance(value, dict):
            ends = {f"{name}_{end}": value[end] for end in ("low", "high")}
            flat |= {name: value["value"], **ends}
        else:
            flat[name] = value
    return flat


def latex_tabular(table: Table, comment: str) -> str:
    """A LaTeX tabular, with each interval below its value."""
    first = table.rows[0] if table.rows else {}
    sides = ["l" if isinstance(first.get(name, ""), str) else "c" for name in table.heads]
    lines = [
        f"% {comment}",
        f"\\begin{{tabular}}{{{''.join(sides)}}}",
        "\\toprule",
        " & ".join(_wrapped(head, "b") for head in table.heads.values()) + " \\\\",
        "\\midrule",
    ]
    for number, row in enumerate(table.rows):
        cells = [_cell(row[name], (number, name) in table.bold) for name in table.heads]
        lines += [" & ".join(cells) + " \\\\", "\\addlinespace[2pt]"]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _wrapped(text: str, level: str = "t") -> str:
    """A text escaped for LaTeX, in several lines where it would make its column wide.

    level: which line stands beside other cells, "t" the first or "b" the last.
    """
    escaped = escape_latex(text)
    lines = textwrap.wrap(escaped, WIDEST, break_long_words=False, break_on_hyphens=False)
    return _stacked(lines, "l", level) if len(lines) > 1 else "".join(lines)


def _stacked(lines: list[str], side: str, level: str) -> str:
    text = "\\\\".join(lines)
    return f"\\begin{{tabular}}[{level}]{{@{{}}{side}@{{}}}}{text}\\end{{tabular}}"


def _cell(value: object, bold: bool) -> str:
    """A cell in LaTeX: an estimate above its interval, a number, or an escaped text."""
    if not isinstance(value, dict) or value["value"] is None:
        return _wrapped(format_value(value))
    text, _, ends = escape_latex(format_value(value)).partition(" ")
    text = f"\\textbf{{{text}}}" if bold else text
    return _stacked([text, f"{{\\scriptsize {ends}}}"], "c", "t")


def escape_latex(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    for character in "%&_#":
        text = text.replace(character, f"\\{character}")
    text = re.sub(r"(?<!\w)[-−](?=[\d ])", "$-$", text)  # a minus, not a hyphen
    return text.replace("<", "$<$")


def markdown(frame: pd.DataFrame) -> str:
    """A table of texts and numbers in Markdown."""
    rows = [list(frame), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
