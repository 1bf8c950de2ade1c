"""The command as its user meets it."""

import argparse
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from helpers import ROOT

from melanoma_lib.cli import build_parser, main
from melanoma_lib.cli.options import configuration
from melanoma_lib.config import PRESETS, Config
from melanoma_lib.core.environment import usable_cores
from melanoma_lib.core.progress import is_interactive, progress
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.pipeline.run import chapters
from melanoma_lib.training import preflight

TINY = ["--no-pretrained", "--image-size", "32", "--epochs", "1", "--batch-size", "16"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def tiny(dataset, tmp_path):
    return ["--data-dir", dataset, "--output-dir", tmp_path / "run", *TINY]


def error_of(capsys):
    text = capsys.readouterr().err
    assert text.startswith("melanoma: ") and text.count("\n") == 1 and "Traceback" not in text
    return text


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from melanoma_lib.cli import build_parser; build_parser().format_help(); "
        "print([m for m in ('torch', 'timm', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_command_depends_on_the_backend_of_the_environment(tmp_path):
    command = [sys.executable, "-m", "melanoma_lib", "figures", "--results", tmp_path / "absent"]
    environment = os.environ | {"MPLBACKEND": "misspelt"}
    done = subprocess.run(
        [*command, "--output-dir", tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "absent does not exist" in done.stderr


def test_commands_in_the_documents_are_understood():
    lines = []
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S):
            lines += re.findall(r"^melanoma .*", block.replace("\\\n", " "), re.M)
    assert len(lines) > 15
    for line in lines:
        build_parser().parse_args(shlex.split(line, comments=True)[1:])  # exits with a usage error


def test_flags_become_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = (
        "run --metadata t.csv --img-dir images --output-dir out --epochs 3 --batch-size 8 --seed 1 "
        "--architectures resnet50,vit_b_16 resnet50 --split image --weights vit_b_16=w.pth "
        "--no-pretrained"
    )
    options = build_parser().parse_args(shlex.split(flags))
    config = configuration(options)
    assert config.architectures == ("resnet50", "vit_b_16")
    assert (config.epochs, config.batch_size, config.seed, config.split) == (3, 8, 1, "image")
    assert config.metadata == str(tmp_path / "t.csv") and config.data_dir == ""
    assert config.weights == {"vit_b_16": str(tmp_path / "w.pth")} and not config.pretrained
    sample = configuration(build_parser().parse_args(["run", "--preset", "sample"]))
    assert sample.data_dir == PRESETS["sample"]["data_dir"]


def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(tiny, tmp_path, capsys):
    bad = [
        (["run", "--data-dir", tmp_path / "absent"], "does not exist"),
        (["run", *tiny, "--architectures", "resnet5O"], "unknown architecture 'resnet5O'"),
        (["run", *tiny, "--architectures", "test_resnet", "-p", "tarjet=1"], "tarjet"),
        (["run", *tiny, "--architectures", "test_resnet", "-p", "tarjet={{1}}"], "tarjet"),
        (["run", *tiny, "-p", "target"], "wants NAME=VALUE"),
        (["run", *tiny, "--devices", "0,x"], "--devices names "),
        (["train", "test_resnet", *tiny, "--notify", "nowhere"], "apprise does not know"),
        (["run", *tiny, "--weights", "resnet50=/absent", "--architectures", "test_vit"], "not to"),
        (["train", "test_resnet", *tiny, "--weights", "test_resnet=/absent"], "does not exist"),
        (["train", "test_resnet", *tiny, "--epochs", "0"], "epochs is 0"),
        (["train", *tiny], "no architecture is named"),
        (["train", "test_resnet", *tiny, "--device", "cuda:99"], "cannot be used"),
    ]
    for arguments, message in bad:
        assert run(*arguments) == 2
        assert message in error_of(capsys)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "images" / "ISIC_9000001.jpg").unlink(), "ISIC_9000001"),
        (lambda d: (d / "images" / "ISIC_9000002.jpg").write_bytes(b"\xff\xd8"), "ISIC_9000002"),
        (lambda d: (d / "HAM10000_metadata.csv").write_text("image_id\n"), "missing column"),
    ],
)
def test_a_damaged_dataset_is_found_before_the_first_epoch(
    tiny, dataset, tmp_path, capsys, damage, message
):
    damage(dataset)
    assert run("train", "test_resnet", *tiny) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_train_leaves_run_folders_and_status_knows_them(tiny, tmp_path, capsys):
    assert run("train", "test_resnet", *tiny, "--architectures", "test_vit") == 0
    for name in ("test_resnet", "test_vit"):
        assert (tmp_path / "run" / name / "bundle.json").exists()
    capsys.readouterr()
    assert run("status", *tiny, "--architectures", "test_resnet", "--epochs", "4") == 0
    out = capsys.readouterr().out
    assert "1 of 4 epochs" in out and "time left: about" in out and "waiting" in out
    # Before a run all that a training needs is looked for, unless it is done to its last epoch.
    flags = map(str, ["run", *tiny, "--architectures", "test_resnet"])
    asked = configuration(build_parser().parse_args(list(flags)))
    for epochs, open_ones in ((1, set()), (4, {"test_resnet"})):
        config = dataclasses.replace(asked, epochs=epochs)
        files = open_dataset(config.data_dir)
        assert set(preflight.check_training(config, files, config.architectures)) == open_ones


def test_data_sample_and_check(dataset, capsys):
    assert run("data", "check", "--data-dir", dataset) == 0
    out = capsys.readouterr().out
    assert "105 images of 70 lesions, 105 masks" in out and "90 train, 15 val+test" in out
    (dataset / "images" / "ISIC_9000003.jpg").write_bytes(b"")
    assert run("data", "check", "--data-dir", dataset) == 2
    assert "ISIC_9000003" in error_of(capsys)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize(
    ("command", "place", "resumes"),
    [
        (["train", "test_resnet"], "melanoma_lib.cli.run.open_configured_dataset", True),
        (["data", "download"], "melanoma_lib.data.download.download", True),
        (["site"], "melanoma_lib.pipeline.website.build", False),
    ],
)
def test_an_interrupt_says_whether_the_command_goes_on(
    monkeypatch, capsys, command, place, resumes, number, code
):
    monkeypatch.setattr(place, lambda *_: os.kill(os.getpid(), number))
    assert run(*command) == code
    assert ("goes on from here" in capsys.readouterr().err) == resumes


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["predcit", "x"], "did you mean predict?"),
        (["data", "chek"], "did you mean check?"),
        (["run", "--split", "leson"], "did you mean lesion?"),
        (["run", "--ouput-dir", "x"], "did you mean --output-dir?"),
        (["run", "--ouput-dir=x"], "did you mean --output-dir?"),
        (["serve", "--port", "x"], "see melanoma serve --help"),
        ([], "see melanoma --help"),
    ],
)
def test_a_usage_error_is_one_line_with_the_nearest_word(capsys, arguments, hint):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    text = capsys.readouterr().err
    assert error.value.code == 2 and text.count("\n") == 1 and text.endswith(f"; {hint}\n")


def parsers(parser):
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


def test_help_says_every_default():
    for parser in parsers(build_parser()):
        for action in parser._actions:
            if action.default and action.default != argparse.SUPPRESS:
                assert "default: " in action.help, f"{parser.prog} {action.dest}"
    text = " ".join(next(p for p in parsers(build_parser()) if p.prog == "melanoma run")
                    .format_help().split())  # fmt: skip
    usual, sample = Config(), PRESETS["sample"]
    for value in (f"{usual.epochs} ({sample['epochs']} with --preset sample)", f"{usual.seed} ",
                  " ".join(usual.architectures), "specificity=0.95 specificity=0.9 sensitivity"):
        assert f"default: {value}" in text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_paths(capsys, shell):
    assert run("completion", shell) == 0
    out = capsys.readouterr().out
    assert "predict" in out and "--operating-points" in out
    assert ("_files" if shell == "zsh" else "_shtab_compgen_files") in out


def test_a_bar_is_shown_only_where_a_person_watches(monkeypatch, capsys):
    assert os.environ["MELANOMA_HEADLESS"] and not is_interactive()
    assert list(progress(range(3), "x")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("MELANOMA_HEADLESS")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress(range(3), "working")) == [0, 1, 2]
    assert "working" in capsys.readouterr().err


def test_the_metadata_flag_reads_a_table_elsewhere(dataset, tmp_path, capsys):
    table = tmp_path / "t.csv"
    (dataset / "HAM10000_metadata.csv").rename(table)
    pd.read_csv(table).assign(dataset="x").to_csv(table, index=False)
    assert run("data", "check", "--metadata", table, "--img-dir", dataset) == 0
    assert "105 images" in capsys.readouterr().out
    assert chapters()


@pytest.mark.parametrize(
    "device, gigabytes, jobs", [("cuda", 141, 2), ("cuda", 8, 1), ("mps", 0, 1), ("cpu", 0, None)]
)
def test_two_notebooks_at_once_on_a_gpu_with_room_for_them(monkeypatch, device, gigabytes, jobs):
    gpu = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: gpu)
    monkeypatch.setattr(preflight, "pick_device", lambda _: torch.device(device))
    assert preflight.default_jobs(Config()) == (jobs or min(4, usable_cores()))
