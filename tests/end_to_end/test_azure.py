"""The job files for Azure ML: valid offline, bound without a gap, and run here on folders."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from melanoma_lib.core.files import read_json
from melanoma_lib.data.synthetic import generate_sample

AZURE = ROOT / "cloud" / "azure"
OPTIONS = "--no-pretrained --image-size 32 --batch-size 16 --epochs 1 --device cpu"
KEYS = ("test_efficientnet", "test_resnet")

azure = pytest.importorskip("azure.ai.ml", reason="needs pip install -e '.[cloud]'")


def expressions(text):
    return set(re.findall(r"\$\{\{([^}]*)\}\}", text))


def unbound(component):
    """What a component's command names and does not declare, or declares and does not name."""
    declared = {f"{kind}.{name}" for kind in ("inputs", "outputs") for name in component[kind]}
    return declared ^ expressions(component["command"])


def gaps(pipeline, components):
    """What the pipeline's jobs refer to and is not there, or need and are not given."""
    there = {f"parent.{kind}.{name}" for kind in ("inputs", "outputs") for name in pipeline[kind]}
    for name, job in pipeline["jobs"].items():
        outputs = components[job["component"]]["outputs"]
        there |= {f"parent.jobs.{name}.outputs.{output}" for output in outputs}
    found = expressions(yaml.safe_dump(pipeline)) ^ there
    found -= {f"parent.jobs.compare.outputs.{name}" for name in pipeline["outputs"]}  # the last
    for job in pipeline["jobs"].values():
        component = components[job["component"]]
        for kind in ("inputs", "outputs"):
            found |= set(job[kind]) ^ set(component[kind])
    return found


@pytest.fixture
def files():
    return {path.name: yaml.safe_load(path.read_text()) for path in AZURE.glob("*.yml")}


@pytest.fixture
def components(files):
    return {f"./{name}": files[name] for name in ("train.yml", "compare.yml")}


def test_every_file_is_valid_for_the_sdk(files):
    kinds = {
        "environment.yml": azure.load_environment, "data.yml": azure.load_data,
        "compute.yml": azure.load_compute, "train.yml": azure.load_component,
        "compare.yml": azure.load_component, "pipeline.yml": azure.load_job,
    }  # fmt: skip
    assert set(kinds) == set(files)
    loaded = {name: load(AZURE / name) for name, load in kinds.items()}
    for name in ("train.yml", "compare.yml", "pipeline.yml"):
        result = loaded[name]._validate()
        assert result.passed, result
    compute = loaded["compute.yml"]
    assert (compute.tier, compute.min_instances) == ("low_priority", 0)
    assert loaded["pipeline.yml"].settings.default_compute == compute.name
    assert Path(loaded["data.yml"].path) == ROOT / "data" / "ham10000"


def test_every_name_between_double_braces_exists(files, components):
    for component in components.values():
        assert not unbound(component)
    assert not gaps(files["pipeline.yml"], components)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("train.yml", "${{inputs.data}}", "${{inputs.dta}}"),
        ("pipeline.yml", "${{parent.inputs.data}}", "${{parent.inputs.dta}}"),
        ("pipeline.yml", "jobs.resnet50.outputs.run", "jobs.resnet50.outputs.ran"),
        ("pipeline.yml", "jobs.resnet50.outputs.run", "jobs.densenet121.outputs.run"),
        ("pipeline.yml", "      architecture: resnet50\n", ""),
    ],
)
def test_a_wrong_name_is_found(files, components, name, right, wrong):
    """What the SDK's own validation lets pass."""
    text = (AZURE / name).read_text()
    assert right in text
    changed = yaml.safe_load(text.replace(right, wrong))
    if name == "pipeline.yml":
        assert gaps(changed, components)
    else:
        assert unbound(changed)


def test_checkpoints_lie_on_a_mounted_output_and_jobs_agree_on_architectures(files):
    jobs = dict(files["pipeline.yml"]["jobs"])
    compared = jobs.pop("compare")["inputs"]
    assert compared["architectures"].split(",") == list(jobs)
    for name, job in jobs.items():
        assert job["inputs"]["architecture"] == name
        assert job["outputs"]["run"]["mode"] == "rw_mount"
        assert compared[name] == f"${{{{parent.jobs.{name}.outputs.run}}}}"


def test_code_goes_along_and_data_runs_and_history_stay_here():
    from azure.ai.ml._utils._asset_utils import get_ignore_file

    ignored = get_ignore_file(ROOT)
    for name in ("data/ham10000/a.jpg", "runs/thesis/b.pt", ".git/config", ".venv/c"):
        assert ignored.is_file_excluded(ROOT / name), name
    for name in ("melanoma_lib/data/split.py", "notebooks/04_training.ipynb", "data/README.md"):
        assert not ignored.is_file_excluded(ROOT / name), name


def test_the_upload_takes_the_images_that_git_ignores(dataset):
    from azure.ai.ml._utils import _asset_utils as upload

    files = [path for path in Path(dataset).rglob("*") if path.is_file()]
    taken = upload.get_upload_files_from_folder(
        dataset, ignore_file=upload.get_ignore_file(dataset)
    )
    assert len(taken) == len(files) > 10 and not list((ROOT / "data").glob("*/.*ignore"))


def document_commands():
    """The commands of docs/cloud.md that lead to a job, each on one line."""
    text = (ROOT / "docs" / "cloud.md").read_text()
    section = text.partition("## Azure from nothing\n")[2].partition("\n## ")[0]
    blocks = "".join(re.findall(r"^```\n(.*?)^```", section, re.M | re.S))
    return section, [line for line in blocks.replace("\\\n", " ").splitlines() if line.strip()]


def test_what_the_document_names_is_in_the_job_files(files):
    _, lines = document_commands()
    commands = "\n".join(lines)
    named = set(re.findall(r"--file (\S+)", commands))
    assert named == {f"cloud/azure/{name}" for name in set(files) - {"train.yml", "compare.yml"}}
    assert all((ROOT / name).exists() for name in named)

    def after(command, option):
        found = re.findall(rf"{command}\b.* --{option} (\S+)", commands)
        return {value for value in found if "$" not in value}

    group = after("az group create", "name")
    assert (
        group
        == after("az group delete", "name")
        == after("az ml workspace create", "resource-group")
    )
    defaults = re.search(r"--defaults group=(\S+) workspace=(\S+)", commands)
    assert {defaults[1]} == group and {defaults[2]} == after("az ml workspace create", "name")
    assert after("az ml data show", "name") == {files["data.yml"]["name"]}
    assert after("az ml compute list-nodes", "name") == {files["compute.yml"]["name"]}
    assert after("az ml job download", "output-name") == set(files["pipeline.yml"]["outputs"])


def test_what_the_document_sets_can_be_set_and_its_options_are_known(files):
    from melanoma_lib.cli import build_parser

    section, _ = document_commands()
    given = dict(re.findall(r"--set\s+([\w.]+)=(\"[^\"]+\"|[^\s`]+)", section))
    options = given.pop("inputs.options").strip('"')
    job = azure.load_job(AZURE / "pipeline.yml", params_override=[{"inputs.options": options}])
    assert job._to_dict()["inputs"]["options"] == options
    assert build_parser().parse_args(["train", "resnet50", *options.split()])
    assert set(given) == {"max_instances", "size", "tier"}
    overrides = [{name: value} for name, value in given.items()]
    compute = azure.load_compute(AZURE / "compute.yml", params_override=overrides)
    assert {name: str(getattr(compute, name)) for name in given} == given


def test_the_image_is_built_from_files_that_exist():
    copied = re.findall(r"^COPY (.+) \S+$", (AZURE / "Dockerfile").read_text(), re.M)
    assert copied and all((ROOT / name).exists() for line in copied for name in line.split())


def test_nothing_here_is_a_credential():
    for path in AZURE.iterdir():
        assert not re.search(r"(?i)key|secret|password|token|[0-9a-f]{8}-[0-9a-f]{4}-",
                             path.read_text()), path  # fmt: skip


def run_job(component, bound, tmp_path, instead=("", "")):
    """Runs a component's command line with its inputs and outputs bound to folders here."""
    command = re.sub(r"\$\{\{(\S+?)\}\}", lambda match: str(bound[match[1]]), component["command"])
    command = command.replace("python ", f"{sys.executable} ").replace(*instead)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train_both(components, data, tmp_path):
    for key in KEYS:
        bound = {"inputs.architecture": key, "inputs.data": data, "inputs.options": OPTIONS,
                 "outputs.run": tmp_path / key}  # fmt: skip
        run_job(components["./train.yml"], bound, tmp_path)
    (tmp_path / "results").mkdir()  # the service mounts it
    names = ("resnet50", "efficientnet_b3", "densenet121", "vit_b_16")
    return {f"inputs.{name}": tmp_path / KEYS[n % 2] for n, name in enumerate(names)} | {
        "inputs.architectures": ",".join(KEYS), "inputs.data": data, "inputs.options": OPTIONS,
        "outputs.results": tmp_path / "results",
    }  # fmt: skip


def test_the_training_job_leaves_what_the_comparing_job_knows(components, dataset, tmp_path):
    bound = train_both(components, dataset, tmp_path)
    out = run_job(components["./compare.yml"], bound, tmp_path, ("_lib run ", "_lib status "))
    assert out.count("1 of 1 epochs") == 2 and "not known before the first epoch" not in out
    assert all((tmp_path / "results" / key / "bundle.json").exists() for key in KEYS)


@pytest.mark.slow
def test_the_comparing_job_draws_and_compares(components, tmp_path):
    data = generate_sample(tmp_path / "sample")
    bound = train_both(components, data, tmp_path)
    weights = [(tmp_path / key / key / "model.safetensors").read_bytes() for key in KEYS]
    run_job(components["./compare.yml"], bound, tmp_path)
    results = tmp_path / "results"
    assert list(read_json(results / "comparison_results.json")["models"]) == list(KEYS)
    assert (results / "figures" / "08-1-comparison.png").exists()
    assert weights == [(results / key / "model.safetensors").read_bytes() for key in KEYS]
