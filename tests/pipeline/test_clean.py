import pytest

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.core.files import write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.pipeline import status


@pytest.fixture
def waste(tmp_path, monkeypatch):
    """A run with a replaced training, pixels of it and of nothing, a broken download."""
    monkeypatch.setattr(status, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("melanoma_lib.cli.status.SAMPLE_DIR", tmp_path / "data" / "sample")
    monkeypatch.setenv("MELANOMA_CACHE", str(tmp_path / "cache"))
    record = {"dataset": {"fingerprint": "f"}, "config": {"image_size": 32}}
    run = tmp_path / "runs" / "night"
    write_json(run / "a" / "run.json", record)
    old = record | {"dataset": {"fingerprint": "old"}}
    write_json(run / "replaced" / "a-key-3" / "run.json", old)
    for name in ("cache/f-32px.npy", "cache/old-32px.npy", "data/ham/part.zip",
                 "data/ham/.part.zip.part", "data/ham/image.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(bytes(3_000_000))
    return tmp_path


def listed(capsys):
    assert main(["clean"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.split(" MB  ")[1] for line in lines if " MB  " in line]


def test_what_may_go_is_listed_with_its_size_and_nothing_else(waste, capsys):
    names = ["runs/night/replaced/a-key-3", "cache/old-32px.npy", "data/ham/.part.zip.part",
             "data/ham/part.zip"]  # fmt: skip
    assert listed(capsys) == [str(waste / name) for name in names]
    assert main(["clean"]) == 0
    assert f"       3.0 MB  {waste / 'cache/old-32px.npy'}" in capsys.readouterr().out


def test_what_is_named_is_deleted_and_no_more(waste, capsys):
    before = listed(capsys)
    assert main(["clean", before[1], "archives"]) == 0
    assert capsys.readouterr().out.count("deleted   ") == 3
    assert listed(capsys) == before[:1]
    assert main(["clean", "replaced"]) == 0
    assert (waste / "runs/night/a/run.json").exists() and (waste / "data/ham/image.jpg").exists()
    assert [path.name for path in (waste / "cache").iterdir()] == ["f-32px.npy"]


def test_a_name_that_is_not_listed_deletes_nothing(waste, capsys):
    before = listed(capsys)
    for name in (waste / "runs/night/a", waste / "data/ham/image.jpg", "everything"):
        assert main(["clean", before[0], str(name)]) == 2
        assert "is not in the list" in capsys.readouterr().err
    assert listed(capsys) == before


def test_what_a_process_uses_is_not_listed(waste, capsys):
    run = Config(output_dir=str(waste / "runs" / "night"))
    with lock(run.training_lock("a")), lock(waste / "data" / "ham" / ".download.lock"):
        assert listed(capsys) == [str(waste / "cache" / "old-32px.npy")]
