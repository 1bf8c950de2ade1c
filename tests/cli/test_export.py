import shutil

import pytest
from helpers import KEYS, fast

from melanoma_lib.cli import main
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.models import hub
from melanoma_lib.reporting.compare import compare

pytest.importorskip("onnxruntime")


@pytest.fixture
def compared(sample_run, sample_files, tmp_path):
    """The sample's run with results and two figures, one of which shows pictures."""
    run = shutil.copytree(sample_run, tmp_path / "run")
    for key in KEYS:
        record = read_json(run / key / "run.json")
        record["config"]["figures_dir"] = str(tmp_path / "figures")
        write_json(run / key / "run.json", record)
    results = compare(run, fast(*KEYS), sample_files.metadata, resamples=50)
    write_json(run / "comparison_results.json", results)
    (tmp_path / "figures").mkdir()
    for name in ("08-1-comparison.png", "01-3-examples.png"):
        (tmp_path / "figures" / name).write_bytes(b"png")
    return run


def test_what_is_pushed_serves_every_bundle_option(compared, tmp_path, monkeypatch, capsys):
    sent = {}

    def upload(folder, repository, public, confirm):
        sent["folder"] = shutil.copytree(folder, tmp_path / "sent")
        sent["consent"] = confirm(repository)
        return f"https://huggingface.co/{repository}"

    monkeypatch.setattr(hub, "upload", upload)
    assert main(["push", "me/net", "--bundle", str(compared / KEYS[0])]) == 0
    assert "huggingface.co/me/net" in capsys.readouterr().out
    assert sent["consent"] is False  # no terminal to ask on
    files = {str(path.relative_to(sent["folder"])) for path in sent["folder"].rglob("*")}
    assert {"README.md", "model.onnx", "split.csv", "figures/08-1-comparison.png"} <= files
    assert {f"{KEYS[0]}/{name}" for name in hub.BUNDLE_FILES} <= files
    assert not any("examples" in name or name.endswith((".jpg", ".pt")) for name in files)

    monkeypatch.setattr("melanoma_lib.models.bundle.fetch_run", lambda address: sent["folder"])
    assert main(["refer", "--bundle", "hf://me/net"]) == 2
    assert "copy" in capsys.readouterr().err
    assert main(["evaluate", "--bundle", "hf://me/net", "--data-dir", "x"]) == 2
    assert "--output-dir" in capsys.readouterr().err


def test_a_model_of_the_hub_predicts(compared, sample_files, monkeypatch, capsys):
    monkeypatch.setattr("melanoma_lib.models.bundle.fetch_run", lambda address: compared)
    assert main(["predict", str(sample_files.images[0]), "--bundle", "hf://me/net@v1"]) == 0
    assert "melanoma" in capsys.readouterr().out.lower()
