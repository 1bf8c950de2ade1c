"""Reporting checklists, TRIPOD+AI and CLAIM, filled in from a run as far as it has the answers."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_lib.core.files import write_text
from melanoma_lib.core.provenance import last_line
from melanoma_lib.reporting.checklist_answers import RunFiles, answer, read_run_files
from melanoma_lib.reporting.summary import describe_results
from melanoma_lib.reporting.table_formats import escape_latex

FOLDER = Path(__file__).parent / "checklists"
STANDARDS = ("tripod-ai", "claim")
ANSWERED, AUTHOR, NOT_DONE = STATES = ("answered from the run", "for the author", "not done")
INTRODUCTION = (
    "{source}. Numbers are those of the standard; what an item asks is in our words, and a journal "
    "wants its own form. Sections are those of the guide to the thesis, and dots stand for what "
    "you know. {counts}."
)
GENERATED = (
    "The run knows only generated pictures: its answers show how the list is filled in, and say "
    "nothing about skin or patients."
)
LATEX = r"""%% Needs the packages booktabs and longtable. %(basis)s
\begin{longtable}{@{}p{.06\linewidth}p{.28\linewidth}p{.58\linewidth}@{}}
\toprule
Item & What it asks & %(title)s \\
\midrule
\endhead
\bottomrule
\endfoot
%(rows)s
\end{longtable}
"""


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a standard in its state; `parts` are texts under a head each."""

    section: str
    number: str
    subject: str
    asks: str
    state: str
    parts: dict[str, list[str]]


def read_standard(name: str) -> dict:
    """A standard, or what its items refer to: `answers` or `tasks`."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def fill_items(standard: str, run_files: RunFiles) -> list[ChecklistItem]:
    """Every item of a standard with its state and what there is to say.

    An item that the author has to write something for is theirs, whatever the run can add.
    """
    known, tasks = read_standard("answers"), read_standard("tasks")
    items = []
    for section in read_standard(standard)["sections"]:
        for item in section["items"]:
            names, task = item.get("answers", []), tasks.get(item.get("task"))
            found = {name: answer(run_files, name, **_sentence(known[name])) for name in names}
            state = AUTHOR if task else ANSWERED if names and all(found.values()) else NOT_DONE
            parts = {
                "From the run": [line for lines in found.values() for line in lines],
                "It stands in": _places([known[name] for name in names if found[name]]),
            }
            if task:
                parts |= {f"To write, {task['where']}": [task["write"]],
                          "For example": [task["example"]]}  # fmt: skip
            elif state == NOT_DONE:
                parts["What would do it"] = [f"{item['missing']}."]
            parts = {head: texts for head, texts in parts.items() if texts}
            items.append(ChecklistItem(section["title"], item["number"], item["subject"],
                                       item["asks"], state, parts))  # fmt: skip
    return items


def _sentence(entry: dict) -> dict[str, str]:
    return {name: entry[name] for name in ("says", "each") if name in entry}


def _places(entries: list[dict]) -> list[str]:
    """Where some answers stand, in one text: files, figures and tables, and sections."""
    files = dict.fromkeys(f"`{name}`" for entry in entries for name in entry["stands_in"])
    numbers = {number for entry in entries for number in entry["sections"]}
    sections = sorted(numbers, key=lambda number: [int(part) for part in number.split(".")])
    several = "s" * (len(sections) > 1)
    return [f"{', '.join(files)}; section{several} {', '.join(sections)}."] if entries else []


def count_states(items: list[ChecklistItem]) -> str:
    """How many items are in each state, in words."""
    counts = Counter(item.state for item in items)
    return f"{len(items)} items: " + ", ".join(f"{counts[state]} {state}" for state in STATES)


def count_open(results_file: Path) -> str:
    """How many items of every standard a run leaves open; raises as `read_run_files` does."""
    run_files, lines = read_run_files(results_file), []
    for standard in STANDARDS:
        items = fill_items(standard, run_files)
        counts = Counter(item.state for item in items)
        lines.append(f"{read_standard(standard)['title']} {len(items) - counts[ANSWERED]} of "
                    f"{len(items)} items open ({counts[NOT_DONE]} {NOT_DONE})")  # fmt: skip
    return "; ".join(lines)


def write_checklist(standard: str, run_files: RunFiles, folder: Path) -> tuple[list[Path], str]:
    """Writes a standard's list as Markdown and LaTeX; returns the paths and the counts in words."""
    head, items = read_standard(standard), fill_items(standard, run_files)
    basis = describe_results(run_files.results)
    basis, counts = basis[0].upper() + basis[1:], count_states(items)
    introduction = INTRODUCTION.format(source=head["source"], counts=counts)
    warning = f"\n{GENERATED}\n" * run_files.results["dataset"]["generated"]
    pages = {
        ".md": f"# {head['title']}\n\n{introduction}\n{warning}\n{basis}\n" + _markdown(items),
        ".tex": LATEX % {
            "title": head["title"], "rows": "\n".join(_latex(items)),
            "basis": f"{introduction} {warning.strip()} {basis} Cite: {head['cite']}",
        } + last_line(".tex"),
    }  # fmt: skip
    paths = [write_text(folder / f"checklist-{standard}{end}", text) for end, text in pages.items()]
    return paths, counts


def _markdown(items: list[ChecklistItem]) -> str:
    lines, section = [], ""
    for item in items:
        if item.section != section:
            section = item.section
            lines += ["", f"## {section}"]
        lines += ["", f"### {item.number} {item.subject}: {item.state}", "", item.asks, ""]
        for head, texts in item.parts.items():
            several = len(texts) > 1
            lines.append(f"- {head}:" + f" {texts[0]}" * (not several))
            lines += [f"  - {text}" for text in texts] * several
    return "\n".join([*lines, ""])


def _latex(items: list[ChecklistItem]) -> Iterator[str]:
    section = ""
    for item in items:
        if item.section != section:
            section = item.section
            yield rf"\multicolumn{{3}}{{@{{}}l}}{{\textbf{{{escape_latex(section)}}}}} \\*"
        texts = [rf"\textbf{{{item.state}}}"]
        for head, lines in item.parts.items():
            texts.append(rf"\emph{{{head}:}} {_escaped(' '.join(lines))}")
        asks = f"{_escaped(item.subject)}. {_escaped(item.asks)}"
        yield rf"{item.number} & {asks} & " + r" \newline ".join(texts) + r" \\ \addlinespace"


def _escaped(text: str) -> str:
    """A text for LaTeX, with what is in backticks in a typewriter's letters."""
    return re.sub(r"`([^`]+)`", r"\\texttt{\1}", escape_latex(text)).replace("…", r"\dots{}")
