"""Reporting checklists: each answer is held against the files of the run that it is taken from."""

import dataclasses
import re
import shutil

import pandas as pd
import pytest
from helpers import ROOT, make_run, results_of, table_of

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.core.provenance import read_provenance
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.pipeline.thesis import GUIDE, sections, thesis
from melanoma_lib.reporting.checklist import (
    ANSWERED,
    AUTHOR,
    NOT_DONE,
    STANDARDS,
    count_open,
    count_states,
    fill_items,
    read_standard,
)
from melanoma_lib.reporting.checklist_answers import ANSWERS, answer, read_run_files
from melanoma_lib.reporting.figures import CATALOG
from melanoma_lib.reporting.tables import CAPTIONS

PLACES, TASKS = read_standard("answers"), read_standard("tasks")
TRIPOD = {
    **dict.fromkeys(map(str, (1, 2, 4, 7, 10, 11, 13, 14, 15, 16, 17, 19, 21, 22, 24, 25, 26)), ""),
    "3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef",
    "20": "abc", "23": "ab", "27": "abc",
}  # fmt: skip


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def edit(path, **values):
    write_json(path, read_json(path) | values)


def further_chapters(results):
    """What chapters 07 and 11 add to the results, in small."""
    for number, model in enumerate(results["models"].values()):
        scored = {"network": "trained", "map": "grad_cam", "target": "predicted"}
        scored |= {"inside": estimate(0.6), "minus_centre": {"inside": estimate(0.25)}}
        model["explanations"] = {"maps": [scored | {"target": "melanoma"}, scored]}
        model["occlusion"] = [
            {"alteration": name, "minus_original": {"melanoma_auc": estimate(change - number / 10)}}
            for name, change in (("lesion_hidden", -0.31), ("hairs_added", -0.02))
        ]
    test = {name: estimate(0.875) for name in (
        "coverage", "melanoma_coverage", "size", "referred", "accuracy")}  # fmt: skip
    judged = {
        "name": "Ensemble", "referral": [{"order": "confidence", "fraction": 0.2, "test": test}],
        "thresholds": [{"plain": {"sensitivity": estimate(0.5), "specificity": estimate(0.9)}}],
        "sets": [{"method": name, "test": test} for name in ("marginal", "class_conditional")],
    }  # fmt: skip
    shift = {"name": "darker", "label": "darker images", "models": {"ensemble": judged}}
    results["abstention"] = {"models": {"ensemble": judged}, "shifts": [shift]}
    return results


def leave_external_test(folder):
    """Leaves the results of an external test."""
    results = read_json(folder / "comparison_results.json")
    results["dataset"] |= {"name": "another clinic"}
    results["external"] = {"left_out": {"of diagnosis scc": 7}, "overlap": ""}
    for model in results["models"].values():
        model["own"] = {"temperature": model["temperature"],
                        "difference": {"melanoma_auc": estimate(-0.125)}}  # fmt: skip
    write_json(folder / "external" / "clinic" / "external_results.json", results)


@pytest.fixture(scope="module")
def _run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checklist") / "run"
    latency = make_run(folder)
    predictions = load_predictions(folder / "model_0" / "predictions.parquet")
    codes = sorted(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))
    held_out = pd.DataFrame({"image_id": predictions.image_ids, "lesion_id": predictions.lesion_ids,
                             "dx": [codes[label] for label in predictions.labels],
                             "part": predictions.splits})  # fmt: skip
    train = held_out.assign(image_id=[f"T{i}" for i in range(len(held_out))], part="train",
                            lesion_id=[f"L{i // 2}" for i in range(len(held_out))])  # fmt: skip
    split = pd.concat([train, held_out])
    split.to_csv(folder / "split.csv", index=False)
    dataset = {"images": len(split), "lesions": int(split["lesion_id"].nunique())}
    for key in latency:
        record = read_json(folder / key / "run.json")
        record["dataset"] |= dataset | {"parts": split["part"].value_counts().to_dict()}
        config = dataclasses.asdict(Config()) | record["config"]
        record |= {"config": config, "versions": {"torch": "2.15"}}
        edit(folder / key / "run.json", **record)
        edit(folder / key / "bundle.json", mean=[0.485, 0.456, 0.406], std=[0.2, 0.3, 0.25])
    path = results_of(folder, latency, table_of(predictions))
    write_json(path, further_chapters(read_json(path)))
    leave_external_test(folder)
    return folder


@pytest.fixture
def folder(_run, tmp_path):
    """A run with everything that a checklist asks of it, which a test may change."""
    return shutil.copytree(_run, tmp_path / "run")


def lines(folder, name):
    """An answer as one text."""
    facts, entry = read_run_files(folder / "comparison_results.json"), PLACES[name]
    sentence = {part: entry[part] for part in ("says", "each") if part in entry}
    return "\n".join(answer(facts, name, **sentence))


def changed(folder, *path, to):
    """Changes a value in the results, given the way to it."""
    results = read_json(folder / "comparison_results.json")
    inner = results
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    write_json(folder / "comparison_results.json", results)


MODEL = ("models", "model_0")
POINT = (*MODEL, "operating_points", 0)
# By answer: the way to a value in the results, another value, and how the answer then says it.
IN_RESULTS = {
    "architectures": ((*MODEL, "parameters"), 1234567, "1,234,567 parameters"),
    "training": ((*MODEL, "epochs"), 77, "77 epochs"),
    "weights": ((*MODEL, "parameters"), 1234567, "1,234,567"),
    "performance": ((*MODEL, "metrics", "melanoma_auc"), estimate(0.7), "0.700 [0.600, 0.800]"),
    "internal": ((*MODEL, "metrics", "accuracy"), estimate(0.7), "test 0.700 [0.600, 0.800]"),
    "calibration": ((*MODEL, "uncalibrated", "ece"), estimate(0.7), "ECE 0.700 [0.600, 0.800]"),
    "points": ((*POINT, "test", "sensitivity"), estimate(0.7), "sensitivity 0.700 [0.600, 0.800]"),
    "consequences": ((*POINT, "test", "missed"), estimate(7.0), "7.000 [6.900, 7.100] missed"),
    "averages": (("ensemble_differences", 0, "accuracy"), estimate(0.7), "accuracy 0.700"),
    "explanations": ((*MODEL, "explanations", "maps", 1, "inside"), estimate(0.7), "mask 0.700"),
    "occlusion": (
        (*MODEL, "occlusion", 1, "minus_original", "melanoma_auc"), estimate(-0.7), "-0.700"
    ),
    "shifts": (("abstention", "shifts", 0, "label"), "blurred images", "blurred images"),
    "referral": (
        ("abstention", "models", "ensemble", "referral", 0, "test", "referred"), estimate(0.7),
        "referred, 0.700 [0.600, 0.800]",
    ),
    "dataset": (("dataset", "lesions"), 4321, "4,321 lesions"),
    "disjoint": (("split",), "image", "Split by image"),
    "missing_data": ((*MODEL, "subgroups", 2, "images"), 4321, "4,321"),
    "output": (("class_names",), ["mel", "nv"], "2 diagnoses (melanoma, "),
    "metrics": ((*MODEL, "metrics", "macro_mce"), estimate(0.7), "Macro MCE"),
    "uncertainty": (("interval", "resamples"), 4321, "4,321 resamples"),
    "subgroups": ((*MODEL, "subgroups", 0, "sensitivity"), estimate(0.97), "0.970"),
    "characteristics": ((*MODEL, "subgroups", 0, "lesions"), 4321, "4,321 lesions"),
    "confirmation": ((*MODEL, "subgroups", -1, "lesions"), 4321, "4,321 lesions"),
    "errors": ((*MODEL, "confusion_matrix", 4), [0, 0, 0, 0, 8, 9, 0], "of 17 images of melanoma 8 "
               "right, the others most often (9) taken for melanocytic nevus"),
    "sample_size": (("test_lesions",), 4321, "4,321 test lesions"),
    "limits": (("trainings",), 5, "Trainings of each network: 5"),
}  # fmt: skip
# The same for values of other files.
IN_FILES = {
    "preparation": ("model_0/bundle.json", {"std": [0.9, 0.8, 0.7]}, "deviation [0.9, 0.8, 0.7]"),
    "predictions": ("model_0/bundle.json", {"temperature": 2.345}, "divided by 2.345"),
    "software": ("model_0/run.json", {"versions": {"torch": "3.1"}}, "torch 3.1"),
    "external": ("external/clinic/external_results.json", {"test_images": 4321}, "4,321 images"),
    "other_data": ("external/clinic/external_results.json", {"prevalence": 0.77}, "77.0% of them"),
    "updating": ("external/clinic/external_results.json", {"dataset": {"name": "Z"}}, "None: on Z"),
}


@pytest.mark.parametrize("name", IN_RESULTS | IN_FILES)
def test_an_answer_is_what_results_and_files_say(folder, name):
    place, value, said = (IN_RESULTS | IN_FILES)[name]
    before = lines(folder, name)
    if name in IN_RESULTS:
        changed(folder, *place, to=value)
    else:
        edit(folder / place, **value)
    if name == "predictions":  # the temperature stands in both
        changed(folder, *MODEL, "temperature", to=value["temperature"])
    assert before and said not in before and said in lines(folder, name)


def test_answers_on_the_split_are_counted_in_it(folder):
    split = pd.read_csv(folder / "split.csv")
    for name, said in (("partition", "Test: 200 images (25.0%) of 100 lesions"),
                       ("disjoint", "0 of 400 held-out images")):  # fmt: skip
        assert said in lines(folder, name)
    melanomas = split[(split["dx"] == "mel") & (split["part"] == "val")]
    told = f"melanoma: {len(melanomas)} images of {melanomas['lesion_id'].nunique()} lesions"
    assert told in lines(folder, "partition").splitlines()[2]
    split.loc[split["image_id"] == "ISIC_0000000", "lesion_id"] = "L1"
    split.loc[split["image_id"] == "T2", "dx"] = "df"
    split = split[split["image_id"] != "ISIC_0000399"]
    split.to_csv(folder / "split.csv", index=False)
    assert "1 of 399 held-out images" in lines(folder, "disjoint")
    assert "Patients are not identified" in lines(folder, "disjoint")
    assert "Test: 199 images (24.9%)" in lines(folder, "partition")
    split.assign(patient_id="1").to_csv(folder / "split.csv", index=False)
    assert "Patients" not in lines(folder, "disjoint")
    count = ((split["part"] == "train") & (split["dx"] == "df")).sum()
    assert f"dermatofibroma {count}" in lines(folder, "imbalance")


def test_groups_by_skin_tone_count_where_the_results_have_them(folder):
    assert "best group by sex, age (years):" in lines(folder, "subgroups")
    changed(folder, *MODEL, "subgroups", 0, "attribute", to="skin_tone")
    assert "skin tone (estimated)" in lines(folder, "subgroups").splitlines()[0]


def test_models_of_which_the_same_is_said_share_a_line(folder):
    assert lines(folder, "preparation").startswith("Model_0, Model_1: 224 pixels")
    config = read_json(folder / "model_1" / "run.json")["config"] | {"image_size": 300}
    edit(folder / "model_1" / "run.json", config=config)
    first, second = lines(folder, "preparation").splitlines()
    assert first.startswith("Model_0: 224 pixels") and second.startswith("Model_1: 300 pixels")


def test_answers_on_training_are_those_of_its_record_and_history(folder):
    config = read_json(folder / "model_0" / "run.json")["config"]
    config |= {"recipe": "balanced", "image_size": 77, "learning_rate": 0.25}
    config["augmentation"] |= {"rotation": 33.0}
    edit(folder / "model_0" / "run.json", config=config)
    told = lines(folder, "training")
    assert "recipe balanced" in told and "learning rate 0.25 (one_cycle)" in told
    assert "77 pixels" in lines(folder, "preparation")
    assert "up to 33 degrees" in lines(folder, "augmentation")
    assert "Recipe balanced: an epoch is at most 20% of one class" in lines(folder, "imbalance")
    assert "is the last; its validation accuracy is 0.200" in lines(folder, "selection")
    history = folder / "model_0" / "history.csv"
    history.write_text(history.read_text().replace("0.2,", "0.625,"))
    assert "is the last; its validation accuracy is 0.625" in lines(folder, "selection")
    assert "validation 0.625" in lines(folder, "internal")


def test_the_list_shows_the_estimates_of_the_results_file(folder, tmp_path, capsys):
    results = read_json(folder / "comparison_results.json")
    for standard in STANDARDS:
        arguments = ["--results", str(folder / "comparison_results.json")]
        assert main(["checklist", "--standard", standard, *arguments]) == 0
        said = capsys.readouterr().out
        assert f"checklist-{standard}.md" in said and "answered from the run" in said
        text, latex = (
            (folder / f"checklist-{standard}.{end}").read_text() for end in ("md", "tex")
        )
        for model in results["models"].values():
            point = model["operating_points"][0]["test"]
            for value in (model["metrics"]["melanoma_auc"], model["metrics"]["accuracy"],
                          model["metrics"]["ece"], point["sensitivity"]):  # fmt: skip
                assert format_estimate(value) in text and format_estimate(value) in latex
        assert "only generated pictures" in text and read_standard(standard)["source"] in text
        assert latex.count("{") == latex.count("}") and "Model\\_0" in latex
        (rows,) = re.findall(r"\\endfoot(.*)\\end\{longtable\}", latex, re.S)
        assert not re.search(r"(?<!\\)[&%#_](?!\s)", rows)
        assert read_provenance(folder / f"checklist-{standard}.tex")["run"] == folder.name
        assert str(tmp_path) not in text + latex.split("\n% {")[0]  # the command is told


def states(folder, standard):
    facts = read_run_files(folder / "comparison_results.json")
    return {item.number: item.state for item in fill_items(standard, facts)}


def test_every_number_of_the_standards_is_there_in_order():
    tripod, claim = (
        [item["number"] for part in read_standard(name)["sections"] for item in part["items"]]
        for name in STANDARDS
    )
    whole = [f"{n}{letter}" for n in range(1, 28) for letter in TRIPOD[str(n)] or [""]]
    assert tripod == whole and len(tripod) == 52
    assert claim == [str(n) for n in range(1, 45)]


def test_what_is_not_there_is_not_done_and_what_would_do_it_is_said(folder):
    complete = {standard: states(folder, standard) for standard in STANDARDS}
    assert complete["tripod-ai"]["23b"] == complete["claim"]["33"] == ANSWERED
    assert [n for n, state in complete["tripod-ai"].items() if state == NOT_DONE] == ["24"]
    assert [n for n, state in complete["claim"].items() if state == NOT_DONE] == ["18"]
    shutil.rmtree(folder / "external")
    (folder / "split.csv").unlink()
    changed(folder, "abstention", "shifts", to=[])
    left = {standard: states(folder, standard) for standard in STANDARDS}
    for standard, numbers in (("tripod-ai", ["12a", "12d", "12f", "13", "20a", "21", "23b"]),
                              ("claim", ["10", "19", "20", "30", "33", "35"])):  # fmt: skip
        assert [n for n, state in left[standard].items()
                if state != complete[standard][n]] == numbers  # fmt: skip
        assert {left[standard][n] for n in numbers} == {NOT_DONE}
    facts = read_run_files(folder / "comparison_results.json")
    told = {item.number: item.parts for item in fill_items("claim", facts)}
    assert told["33"]["What would do it"][0].startswith("`melanoma evaluate`")
    assert "From the run" not in told["33"]


@pytest.mark.parametrize("why", ["other weights", "images of the training data"])
def test_what_is_no_external_test_does_not_count(folder, why):
    path = folder / "external" / "clinic" / "external_results.json"
    results = read_json(path)
    if why == "other weights":
        results["models"]["model_1"]["temperature"] = 9.0
    else:
        results["external"]["overlap"] = why
    write_json(path, results)
    assert states(folder, "claim")["33"] == NOT_DONE
    assert "External tests: 0" in lines(folder, "limits")


def test_what_the_author_has_to_write_stays_with_the_author(folder):
    facts = read_run_files(folder / "comparison_results.json")
    for standard in STANDARDS:
        items = fill_items(standard, facts)
        for item in items:
            to_write = any(head.startswith("To write, ") for head in item.parts)
            assert (item.state == AUTHOR) == to_write == ("For example" in item.parts)
            assert (item.state == NOT_DONE) == ("What would do it" in item.parts)
            assert item.state != ANSWERED or item.parts["From the run"]
        assert count_states(items).startswith(f"{len(items)} items: ")


def test_files_refer_to_what_there_is(folder):
    numbers = {head.partition(" ")[0] for head in sections(GUIDE.read_text())}
    used, tasks = set(), set()
    for standard in STANDARDS:
        for part in read_standard(standard)["sections"]:
            for item in part["items"]:
                used |= set(item.get("answers", []))
                tasks |= {item["task"]} if "task" in item else set()
                assert ("task" in item) != ("missing" in item), item["number"]
    assert used == set(PLACES) and tasks == set(TASKS)
    assert {*IN_RESULTS, *IN_FILES, "partition", "imbalance", "augmentation", "selection"} == used
    assert {name for name, entry in PLACES.items() if "says" not in entry} == set(ANSWERS)
    documented = (ROOT / "docs" / "run_folder.md").read_text() + GUIDE.read_text()
    documented += (ROOT / "docs" / "results.md").read_text()
    for name, entry in PLACES.items():
        for place in entry["stands_in"]:
            assert place in {*CATALOG, *CAPTIONS} or place in documented, (name, place)
        assert entry["sections"] and set(entry["sections"]) <= numbers, name
    for task in TASKS.values():
        assert task["where"].removeprefix("in section ") in {
            *numbers, "on the title page", "in the abstract", "in the acknowledgements"
        }  # fmt: skip


def test_commands_that_would_do_it_exist():
    from melanoma_lib.cli import build_parser

    known = build_parser().format_help()
    for standard in STANDARDS:
        for part in read_standard(standard)["sections"]:
            for item in part["items"]:
                for command in re.findall(r"`melanoma (\w+)`", item.get("missing", "")):
                    assert re.search(rf"^    {command}\b", known, re.M), command


def test_the_state_of_the_thesis_counts_what_is_open(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(output_dir=str(folder), architectures=("model_0", "model_1"))
    (line,) = [line for line in thesis(config, []).splitlines() if line.startswith("checklists")]
    assert line == f"checklists: {count_open(folder / 'comparison_results.json')}"
    open_items = sum(state != ANSWERED for state in states(folder, "claim").values())
    assert f"CLAIM, 2024 update {open_items} of 44 items open (1 not done)" in line
    changed(folder, "schema", to=0)
    assert "checklists: " in thesis(config, []) and "another layout" in thesis(config, [])
    (folder / "comparison_results.json").unlink()
    assert "checklists" not in thesis(config, [])


def test_no_list_without_results(trained, capsys):
    folder, *_ = trained
    results = str(folder / "comparison_results.json")
    assert main(["checklist", "--standard", "claim", "--results", results]) == 2
    assert "does not exist" in capsys.readouterr().err
