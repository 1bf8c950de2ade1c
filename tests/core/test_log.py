import re
import sys
import time

import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.log import LOG, buffer_lines, run_log

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def lines(run):
    found = (run / LOG).read_text().splitlines()
    assert all(re.match(TIME, line) for line in found)
    return [re.sub(TIME, "", line) for line in found]


def test_what_is_printed_is_shown_and_kept_line_by_line_with_the_time(tmp_path, capsys):
    with run_log(tmp_path / "run", "melanoma run night"):
        print("chapter", end="")
        print(" begins\n\n  1/20")
        print("a warning", file=sys.stderr)
        sys.stderr.write("\r 10%|#  \r 20%|## \r       \r")  # a bar
        print("note", file=sys.stderr)
    begin, *middle, end = lines(tmp_path / "run")
    assert begin.startswith("melanoma run night: begins, process ")
    assert middle == ["chapter begins", "  1/20", "a warning", "note"]
    assert re.fullmatch(r"melanoma run night: ended after \d s", end)
    shown = capsys.readouterr()
    assert shown.out == "chapter begins\n\n  1/20\n" and shown.err.startswith("a warning\n\r 10%")


@pytest.mark.parametrize(
    ("error", "end"),
    [(MelanomaError("the disk is full"), "error: the disk is full"), (KeyboardInterrupt(15), "")],
)
def test_the_log_says_how_a_command_ended_and_the_next_one_appends(tmp_path, error, end):
    with pytest.raises(type(error)), run_log(tmp_path, "melanoma train a"):
        raise error
    found = lines(tmp_path)
    assert end in found and "an error" in found[-1] if end else "interrupted after" in found[-1]
    with run_log(tmp_path, "melanoma train a"):
        time.sleep(0)
    assert lines(tmp_path)[: len(found)] == found and len(lines(tmp_path)) == len(found) + 2


def test_lines_are_passed_on_when_they_are_whole():
    found = []
    write = buffer_lines(found.append)
    for text in ("a", "b\nc", "\n\n", "d"):
        write(text)
    assert found == ["ab", "c", ""]
