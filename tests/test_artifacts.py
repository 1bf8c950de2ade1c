import json
import stat

import pytest

from melanoma_lib.artifacts import (
    MelanomaError,
    atomic_path,
    checksum_holds,
    digest,
    offenders,
    read_history,
    read_json,
    write_csv,
    write_json,
    write_text,
)


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_written_files_have_ordinary_permissions(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    written = write_text(tmp_path / "written", "x")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_checksum_in_the_name_notices_a_flipped_bit(tmp_path):
    with atomic_path(tmp_path / "a.bin", checksum=True) as temporary:
        temporary.write_bytes(b"content")
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("a-") and path.suffix == ".bin"
    assert checksum_holds(path)
    path.write_bytes(b"contens")
    assert not checksum_holds(path)


def test_json_refuses_nan_and_reports_bad_files_in_one_line(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == json.loads('{"x": 1}')
    (tmp_path / "b.json").write_text('{"x": ')
    for name in ("b.json", "absent.json"):
        with pytest.raises(MelanomaError) as error:
            read_json(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_history_comes_back_as_it_was_written(tmp_path):
    assert read_history(tmp_path) == []
    write_csv(tmp_path / "history.csv", [{"epoch": 1, "val_loss": 0.5}])
    assert read_history(tmp_path) == [{"epoch": "1", "val_loss": "0.5"}]


def test_offenders_names_ten_and_counts_all():
    text = offenders([f"x{i}" for i in range(12)])
    assert "x9" in text and "x10" not in text and "12 in all" in text
    assert offenders(["a", "b"]) == "a, b"


def test_digest_ignores_key_order_but_not_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
