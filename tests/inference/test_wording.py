import csv
import json

import pytest
from helpers import KEYS

from melanoma_lib.cli import main
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.inference import wording
from melanoma_lib.inference.predictor import Decision, Prediction


def figure(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


POINT = {
    "name": "specificity_95", "criterion": "specificity", "target": 0.95, "threshold": 0.4,
    "test": {"sensitivity": figure(0.7), "specificity": figure(0.9), "missed": figure(30),
             "false_alarms": figure(50)},
}  # fmt: skip


def case(score, called):
    reading = Prediction(None, {MELANOMA: score, "nv": 1 - score}, 0.0, False)
    return reading, Decision(POINT, called, True, {MELANOMA: 0.2, "other": 0.97})


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.314, "31 %"), (0.0314, "3.1 %"), (0.999, "99.9 %"), (0, "less than 0.1 %"),
     (0.9999, "more than 99.9 %")],
)  # fmt: skip
def test_a_share_in_words_is_never_certain(share, text):
    assert wording.percent(share) == text


def test_the_meaning_gives_the_models_own_figures():
    called = " ".join(wording.meaning(*case(0.5, True)))
    for part in ("50 %, is at or above the threshold of 40 %", "70 % (95 % interval 60 to 80 %)",
                 "90 %", "miss 30", "50 false", "3.0 % score as high or higher"):
        assert part in called
    spared = " ".join(wording.meaning(*case(0.3, False)))
    assert "below the threshold" in spared and "melanomas of the validation part, 20 %" in spared


def test_the_summary_repeats_the_verdict_whatever_is_answered():
    reading, decision = case(0.5, True)
    for answers in (["yes"] * 3, ["no"] * 3, ["not sure", "yes", "no"]):
        text = wording.summary(reading, decision, answers)
        assert "called melanoma at a specificity of at least 95 %" in text
        assert "50 %" in text and "no part of its verdict" in text
    assert "You named 1 of" in text and "see a doctor soon" in text


def test_every_answer_is_explained():
    for number in range(len(wording.QUESTIONS)):
        replies = [wording.reply(number, answer) for answer in wording.ANSWERS]
        assert len(set(replies)) == 3 and all(len(text) > 50 for text in replies)


@pytest.fixture
def command(sample_run, sample_dir, tmp_path, capsys):
    """Runs `melanoma predict` on three pictures, one of them bad."""
    images = sorted((sample_dir / "images").iterdir())[:2]
    (tmp_path / "bad.jpg").write_text("no picture")

    def run(*options, pictures=(*images, tmp_path / "bad.jpg"), bundle=KEYS[0]):
        arguments = ["predict", *pictures, "--bundle", sample_run / bundle, *options]
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_a_line_a_picture_and_the_exit_code_tells_of_bad_ones(command):
    code, out, err = command()
    lines = out.splitlines()
    assert lines[0] == wording.NOTICE and lines[1] == wording.GENERATED
    assert "specificity_95" in lines[2] and "sensitivity" in lines[2] and len(lines) == 5
    assert code == 1 and "bad.jpg: not a readable image" in err and err.count("\n") == 1
    assert command(pictures=[lines[3].partition(":")[0]])[0] == 0


def test_json_for_programs_and_a_table(command, tmp_path):
    table = tmp_path / "out.csv"
    _, out, _ = command("--json", "--csv", table, "--operating-point", "sensitivity_95")
    document = json.loads(out)
    assert document["notice"] == wording.NOTICE
    assert document["operating_point"]["name"] == "sensitivity_95"
    assert document["operating_point"]["test"]["sensitivity"]["low"] is not None
    first, *_, bad = document["images"]
    assert sum(first["probabilities"].values()) == pytest.approx(1) and "error" in bad
    rows = list(csv.DictReader(table.open()))
    assert rows[0]["predicted"] == first["predicted"]
    assert float(rows[0]["p_mel"]) == first["probabilities"][MELANOMA]
    assert "bad.jpg" in rows[2]["error"] and not rows[2]["predicted"]


def test_bad_input_is_one_line_and_exit_code_2(command, tmp_path):
    for options in (
        {"bundle": "nowhere"},
        {"bundle": "."},  # two models: which?
        {"pictures": [tmp_path / "empty"]},
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        code, out, err = command(**options)
        assert code == 2 and not out and err.count("\n") == 1
    code, _, err = command("--operating-point", "best")
    assert code == 2 and "has no operating point 'best'" in err
