import errno
import os
import stat
from pathlib import Path

import pytest
from helpers import refuse

from melanoma_lib.core import errors
from melanoma_lib.core.errors import MelanomaError, describe_error
from melanoma_lib.core.files import write_text


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EINVAL])
@pytest.mark.parametrize("place", [(Path, "chmod"), (os, "fsync"), (Path, "replace")])
def test_files_are_written_where_the_file_system_lacks_a_nicety(
    tmp_path, monkeypatch, capsys, place, number
):
    """As those of network homes and mounted buckets; one line says what follows."""
    write_text(tmp_path / "a.txt", "old")
    errors._print_once.cache_clear()
    monkeypatch.setattr(*place, refuse(number))
    for text in ("new", "newer"):
        write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line
    monkeypatch.undo()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize("place", [(Path, "chmod"), (os, "fsync"), (Path, "replace")])
def test_a_disk_that_fails_is_no_nicety(tmp_path, monkeypatch, place):
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(*place, refuse(errno.EIO))
    with pytest.raises(MelanomaError, match=r"a.txt cannot be written \(.*Input/output"):
        write_text(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MelanomaError("a line\nand more"), "a line and more"),
        (MelanomaError("\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}é"), r"\x1b[2J\u202eé"),
        (KeyError("name"), "KeyError: 'name'"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_error_is_told_with_its_type_unless_it_is_ours(error, text):
    assert describe_error(error) == text
