"""The notebooks: clean in version control, and executed at the sample's size."""

import ast
import csv
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from helpers import KEYS
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.files import read_json
from melanoma_lib.core.provenance import read_provenance
from melanoma_lib.pipeline import run
from melanoma_lib.reporting.figures import CATALOG

TABLE = "HAM10000_metadata.csv"
NOTEBOOKS = sorted(run.NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def book(request):
    return nbformat.read(request.param, 4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_batch_runs_all_chapters_but_page_and_cloud_and_compares_what_they_found():
    expected = [*(f"0{n}" for n in range(8)), "12", "11", "08"]
    assert [path.stem[:2] for path in run.chapters()] == expected


def test_no_outputs_are_kept(book):
    nbformat.validate(book)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(book))


def test_there_is_one_parameters_cell_of_commented_scalars(book):
    (cell,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert isinstance(ast.literal_eval(line.partition("=")[2].strip()), str | int | float), line
        assert "#" in line, f"no comment: {line}"


def test_every_chapter_has_its_parts(book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert text.startswith("[")  # the links to its neighbours
    number = text[text.index("\n# ") + 3 :][:2]
    for part in ("You will", "You need", "Time", "## Further reading"):
        assert part in text or part.lower() in text.lower(), part
    if number != "00":
        for part in ("## In your thesis", "## Exercises"):
            assert part in text, part


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_chapter_links_to_its_neighbours(path):
    first, *_, last = nbformat.read(path, 4).cells
    number = NOTEBOOKS.index(path)
    around = [*NOTEBOOKS[max(number - 1, 0) : number], *NOTEBOOKS[number + 1 : number + 2]]
    links = re.findall(r"\]\((.+?)\)", first.source.splitlines()[0])
    contents = [NOTEBOOKS[0].name] if number > 1 else []
    assert sorted(links) == sorted([neighbour.name for neighbour in around] + contents)
    assert last.source.splitlines()[-1] == first.source.splitlines()[0]


def test_prose_and_calls_but_no_long_definitions(book):
    for cell in code_cells(book):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 6, node.name


def test_a_chapter_that_opens_the_dataset_takes_its_table_and_images_from_elsewhere(book):
    code = "\n".join(cell.source for cell in code_cells(book))
    if "open_dataset(data_dir" in code or "data_dir=data_dir" in code:
        declared = {line.partition(" =")[0] for line in code_cells(book)[0].source.splitlines()}
        assert {"data_dir", "metadata", "img_dir"} <= declared
        assert "open_dataset(data_dir)" not in code


@pytest.fixture(scope="module")
def finished(sample_dir, tmp_path_factory):
    """A run by the thesis's command on the sample, its table elsewhere; and the run's arguments."""
    folder = tmp_path_factory.mktemp("of {somebody}")
    (folder / "table").mkdir()
    for name in (TABLE, "sample.json"):
        shutil.copy(sample_dir / name, folder / "table")
    flags = [
        "--metadata", str(folder / "table" / TABLE), "--img-dir", str(sample_dir),
        "--epochs", "1", "--batch-size", "16", "--seed", "42", "--image-size", "64",
        "--no-pretrained",
    ]  # fmt: skip
    other = str(folder / "image")
    assert main(["train", KEYS[0], *flags, "--split", "image", "--output-dir", other]) == 0
    flags += ["--output-dir", str(folder / "run"), "--architectures", *KEYS]
    flags += ["--figures-dir", str(folder / "figures"), "--other-split", other]
    leak = [*flags[: flags.index("--architectures")], "--leaked-fraction", "0.1", "0.2"]
    assert main(["leakage", KEYS[0], *leak]) == 0
    assert main(["run", *flags]) == 0
    return folder, flags


def test_every_figure_of_the_catalogue_is_drawn(finished):
    folder, _ = finished
    drawn = {path.stem: path for path in (folder / "figures").glob("*.png")}
    for name in CATALOG:
        variants = [stem for stem in drawn if stem == name or stem.startswith(f"{name}-")]
        assert variants, name
        for stem in variants:
            assert drawn[stem].with_suffix(".pdf").stat().st_size > 1000


def test_figures_are_redrawn_as_the_chapters_drew_them(finished, tmp_path):
    """Byte for byte but for where they come from, so that both prepare the same."""
    folder, flags = finished
    drawn = folder / "figures"
    arguments = ["figures", "--results", str(folder / "run" / "comparison_results.json")]
    arguments += ["--output-dir", str(tmp_path), "--figures-dir", str(drawn)]
    assert main([*arguments, *flags[:2]]) == 0
    redrawn = {path.name: without_origin(path) for path in tmp_path.glob("*.p*")}
    assert redrawn == {path.name: without_origin(path) for path in drawn.iterdir()}
    assert {read_provenance(path)["run"] for path in drawn.iterdir()} == {"run"}


def without_origin(path):
    """The pixels of a PNG; a PDF without its keywords and what counts its bytes."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return image.size, image.tobytes()
    text = re.sub(rb"/Keywords \((?:\\.|[^\\)])*\)", b"", path.read_bytes())
    return re.sub(rb"startxref\n\d+|^\d{10} \d{5} n", b"", text, flags=re.MULTILINE)


def test_the_results_are_written_in_numbers_tables_and_words(finished):
    folder, _ = finished
    results = read_json(folder / "run" / "comparison_results.json")
    assert list(results["models"]) == KEYS and results["dataset"]["generated"]
    table = (folder / "run" / "comparison_table.csv").read_text().splitlines()
    assert json.loads(table.pop().removeprefix("# "))["chapter"].startswith("08")
    rows = list(csv.DictReader(table))
    averages = ["ensemble", *(f"flips-{key}" for key in KEYS)]
    assert [row["architecture"] for row in rows] == KEYS + averages
    assert "\\toprule" in (folder / "run" / "comparison_table.tex").read_text()
    summary = (folder / "run" / "summary.md").read_text()
    assert f"{results['models'][KEYS[0]]['metrics']['melanoma_auc']['value']:.3f}" in summary
    assert "price of leakage" in summary
    tables = {path.name for path in (folder / "run" / "tables").iterdir()}
    kinds = ("operating_points", "averages", "differences", "subgroups", "diagnoses",
             "confident_errors", "explanations", "occlusion", "leakage", "price_of_leakage",
             "risk_coverage", "referral", "promised_thresholds", "prediction_sets",
             "shifts")  # fmt: skip
    assert tables == {f"{kind}.{suffix}" for kind in kinds for suffix in ("csv", "tex")} | {
        f"isic2018-{key}.csv" for key in KEYS
    }


def test_executed_notebooks_are_kept(finished):
    folder, _ = finished
    names = {path.stem for path in (folder / "run" / "notebooks").iterdir()}
    assert {f"04_training-{key}" for key in KEYS} <= names and len(names) == 12
    for path in (folder / "run" / "notebooks").iterdir():
        for cell in code_cells(nbformat.read(path, 4)):
            warnings = [o.text for o in cell.outputs if o.get("name") == "stderr"]
            assert not warnings, f"{path.stem}: {warnings}"


def test_running_again_does_nothing(finished, capsys):
    folder, flags = finished
    before = {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}
    assert main(["run", *flags]) == 0
    assert capsys.readouterr().out.count("up to date") == 12
    assert main(["status", *flags]) == 0
    assert capsys.readouterr().out.count(" done ") == 12
    after = {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {".lock", "run.log"}  # which says that nothing was to do


def test_a_copy_of_project_and_data_is_up_to_date(finished, sample_dir, tmp_path, capsys):
    """Whatever the times of its files are, and without the run that it is a copy of."""
    folder, flags = finished
    copies = {str(path): str(tmp_path / path.name) for path in (folder, sample_dir)}
    for path, copy in copies.items():
        shutil.copytree(path, copy, copy_function=shutil.copyfile)
        flags = [flag.replace(path, copy) for flag in flags]
    away = folder.rename(tmp_path / "away")
    try:
        assert main(["run", *flags]) == 0
        assert capsys.readouterr().out.count("up to date") == 12
        assert main(["status", "--output-dir", str(tmp_path / folder.name / "run")]) == 0
        assert capsys.readouterr().out.count(" done ") == 12
    finally:
        away.rename(folder)


def test_an_external_test_is_of_images_that_the_run_has_not_seen(
    finished, dataset, tmp_path, capsys
):
    """Their table and images, too, may lie apart."""
    folder, flags = finished
    command = ["evaluate", "--bundle", str(folder / "run"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, *flags[:4]]) == 2
    assert "trained and tested on" in capsys.readouterr().err
    table, images = tmp_path / TABLE, tmp_path / "pictures"
    images.mkdir()
    for path in (dataset / "images").iterdir():
        shutil.copy(path, images / path.name.replace("_9", "_8"))
    table.write_text((dataset / TABLE).read_text().replace("_9", "_8"))
    assert main([*command, "--metadata", str(table), "--img-dir", str(images)]) == 0
    external = read_json(tmp_path / "out" / "external_results.json")
    assert set(external["models"]) == set(KEYS) and external["test_images"] == 105
