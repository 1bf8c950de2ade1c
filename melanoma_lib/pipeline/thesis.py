"""The state of the thesis: by section of the guide its figures and tables, and its writing."""

import datetime
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, write_text
from melanoma_lib.pipeline.run import COMPARISON, Step, state_of

GUIDE = PROJECT / "docs" / "thesis_guide.md"
FILE = "thesis.toml"  # the student's, in the folder that the command is started in
STATES = ("open", "draft", "done")
HEAD = """# The writing, for `melanoma status --thesis`. Of each section:
# status: open, draft or done; words so far; due: the date it should be done, as 2027-03-31.
"""


def sections(guide: str) -> dict[str, list[str]]:
    """The names in backticks below each numbered heading of the thesis guide, by heading."""
    parts = re.split(r"^###? (.*)\n", guide, flags=re.MULTILINE)[1:]
    named = zip(parts[::2], parts[1::2], strict=True)
    return {
        head: re.findall(r"`([^`]+)`", body) for head, body in named if re.match(r"\d\.\d", head)
    }


def init(file: Path) -> Path:
    """Writes a file with the guide's sections for a student to keep; returns its path.

    Raises `MelanomaError` where there is one already.
    """
    if file.exists():
        raise MelanomaError(f"{file} is there already; edit it, or name another with --file")
    parts = [
        f'[{head.partition(" ")[0]!r}]  # {head.partition(" ")[2]}\nstatus = "open"\nwords = 0\n'
        "# due = 2027-03-31\n"
        for head in sections(GUIDE.read_text(encoding="utf-8"))
    ]
    return write_text(file, "\n".join([HEAD, *parts]))


def read_writing(file: Path) -> dict[str, dict]:
    """The student's file by number of section; {} without one.

    Raises `MelanomaError` for what is not as `init` writes it.
    """
    if not file.exists():
        return {}
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MelanomaError(f"{file} cannot be read ({error})") from None
    known = {head.partition(" ")[0] for head in sections(GUIDE.read_text(encoding="utf-8"))}
    for number, section in found.items():
        if number not in known:
            raise MelanomaError(f"{file}: the guide has no section {number}")
        right = (
            isinstance(section, dict)
            and section.get("status") in STATES
            and isinstance(section.get("words", 0), int)
            and isinstance(section.get("due", datetime.date.today()), datetime.date)
        )
        if not right:
            raise MelanomaError(
                f"{file}, section {number}: status is one of {', '.join(STATES)}, words a number, "
                "due a date as 2027-03-31"
            )
    return found


def _is_late(section: Mapping) -> bool:
    due = section.get("due", datetime.date.max)
    return section["status"] != "done" and due < datetime.date.today()


def _written(section: Mapping) -> str:
    """The writing of a section in words."""
    text = f"{section['status']}, {section.get('words', 0)} words"
    if section["status"] == "done" or "due" not in section:
        return text
    return f"{text}, {'late since' if _is_late(section) else 'due'} {section['due']}"


def thesis(config: Config, steps: list[Step]) -> str:
    """The state of every section of the thesis guide: figures and tables, and the writing.

    States: ready, open, text only. A figure or table counts if its chapter is up to date. The
    writing is shown where the student keeps a `thesis.toml`, and what is open of the reporting
    checklists where there are results.
    """
    from melanoma_lib.reporting.figures import CATALOG, PER_MODEL  # slow to import
    from melanoma_lib.reporting.table_formats import table_file
    from melanoma_lib.reporting.tables import CAPTIONS

    written = read_writing(Path(FILE))
    stale = {step.chapter for step in steps if state_of(step) != "done"}
    output, lines = Path(config.output_dir), [
        f"{config.output_dir}, by docs/{GUIDE.name}; what melanoma run would make again is lacking"
    ]
    for head, names in sections(GUIDE.read_text(encoding="utf-8")).items():
        files = {}
        for name in names:
            if name in CATALOG:
                keys = [f"-{key}" for key in config.architectures] if name in PER_MODEL else [""]
                files |= {name + key: config.figures / f"{name}{key}.pdf" for key in keys}
            elif name in CAPTIONS:
                files[name] = output / f"{table_file(name)}.tex"
        lacks = [
            name for name, file in files.items()
            if (name[:2] if name[:2].isdigit() else COMPARISON) in stale or not file.exists()
        ]  # fmt: skip
        state = "open" if lacks else "ready" if files else "text only"
        has = [name for name in files if name not in lacks]
        details = ", ".join(has) + ("; lacks " if has else "lacks ") * bool(lacks)
        section = written.get(head.partition(" ")[0])
        writing = f"{_written(section) if section else '':32s} " if written else ""
        lines.append(f"{state:10s} {head:36s} {writing}{details}{', '.join(lacks)}".rstrip())
    return "\n".join([*lines, *_checklists(output), *_writing_in_all(written)])


def _checklists(run_dir: Path) -> list[str]:
    """How many items of the reporting checklists are open; nothing before there are results."""
    from melanoma_lib.reporting.checklist import count_open

    results = run_dir / "comparison_results.json"
    try:
        return [f"checklists: {count_open(results)}"] if results.exists() else []
    except MelanomaError as error:
        return [f"checklists: {error}"]


def _writing_in_all(written: Mapping[str, Mapping]) -> list[str]:
    """What is done, how much it is, and what is late; how to begin without a file."""
    if not written:
        return [f"`melanoma thesis init` writes {FILE}, in which you keep status, words and dates"]
    done = sum(section["status"] == "done" for section in written.values())
    words = sum(section.get("words", 0) for section in written.values())
    late = [number for number, section in written.items() if _is_late(section)]
    return [f"writing: {done} of {len(written)} sections done, {words:,} words; "
            f"late: {', '.join(late) or 'none'}"]  # fmt: skip
