import csv
import json

import pytest
from helpers import KEYS

from melanoma_lib.cli import main
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.inference import wording
from melanoma_lib.inference.predictor import Decision, Prediction


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


POINT = {
    "name": "specificity_95", "criterion": "specificity", "target": 0.95, "threshold": 0.4,
    "test": {"sensitivity": estimate(0.7), "specificity": estimate(0.9), "missed": estimate(30),
             "false_alarms": estimate(50)},
}  # fmt: skip


def case(probability, positive):
    prediction = Prediction(None, {MELANOMA: probability, "nv": 1 - probability}, 0.0, False)
    return prediction, Decision(POINT, positive, True, {MELANOMA: 0.2, "other": 0.97})


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.314, "31%"), (0.0314, "3.1%"), (0.999, "99.9%"), (0, "less than 0.1%"),
     (0.9999, "more than 99.9%")],
)  # fmt: skip
def test_a_percentage_is_never_certain(fraction, text):
    assert wording.percent(fraction) == text


def test_the_explanation_gives_the_models_own_test_results():
    positive = " ".join(wording.explain_decision(*case(0.5, True)))
    for part in ("50%, is at or above the threshold of 40%", "70% (95% interval 60 to 80%)",
                 "90%", "miss 30", "50 false", "other diagnoses", "3.0%"):
        assert part in positive
    negative = " ".join(wording.explain_decision(*case(0.3, False)))
    assert "below the threshold" in negative
    assert "melanomas in the validation split, 20%" in negative


def test_the_summary_repeats_the_decision_whatever_is_answered():
    prediction, decision = case(0.5, True)
    for answers in (["yes"] * 3, ["no"] * 3, ["not sure", "yes", "no"]):
        text = wording.summarize_answers(prediction, decision, answers)
        assert wording.decision_text(decision).lower() in text and "50%" in text
    assert "specificity of at least 95%" in wording.decision_text(decision)
    assert "You named 1 of" in text and "see a doctor soon" in text


def test_every_answer_has_its_comment():
    for number in range(len(wording.QUESTIONS)):
        comments = [wording.comment_answer(number, answer) for answer in wording.ANSWERS]
        assert len(set(comments)) == 3 and all(len(text) > 50 for text in comments)


@pytest.fixture
def command(sample_run, sample_dir, tmp_path, capsys):
    """Runs `melanoma predict` on three images, one of them bad."""
    files = sorted((sample_dir / "images").iterdir())[:2]
    (tmp_path / "bad.jpg").write_text("no image")

    def run(*options, images=(*files, tmp_path / "bad.jpg"), bundle=KEYS[0]):
        arguments = ["predict", *images, "--bundle", sample_run / bundle, *options]
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_a_line_an_image_and_the_exit_code_tells_of_bad_ones(command):
    code, out, err = command()
    lines = out.splitlines()
    assert lines[0] == wording.DISCLAIMER and lines[1] == wording.GENERATED
    assert "specificity_95" in lines[2] and "sensitivity" in lines[2] and len(lines) == 5
    assert code == 1 and "bad.jpg: not a readable image" in err and err.count("\n") == 1
    assert command(images=[lines[3].partition(":")[0]])[0] == 0


def test_json_for_programs_and_a_table(command, tmp_path):
    table = tmp_path / "out.csv"
    _, out, _ = command("--json", "--csv", table, "--operating-point", "sensitivity_95")
    document = json.loads(out)
    assert document["notice"] == wording.DISCLAIMER
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
        {"images": [tmp_path / "empty"]},
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        code, out, err = command(**options)
        assert code == 2 and not out and err.count("\n") == 1
    code, _, err = command("--operating-point", "best")
    assert code == 2 and "has no operating point 'best'" in err


def test_of_a_run_the_best_model_is_named_beside_the_json(command):
    code, out, err = command("--json", bundle=".")
    assert code == 1 and json.loads(out)["model"]
    assert json.loads(out)["bundle"] in err and err.count("\n") == 2  # and the bad image
