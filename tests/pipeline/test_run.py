"""The batch on three tiny notebooks: what runs, what is left alone, what a failure leaves."""

import dataclasses
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import hear_signals, wait_for, write_notebook

from melanoma_lib.config import Config
from melanoma_lib.core.environment import usable_cores
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.pipeline import execute, run

both_kinds = pytest.mark.parametrize("forking", [False, True], ids=["ordinary", "forked"])
TRAININGS = ["04_training-resnet50", "04_training-vit_b_16"]
HEAD = """
import os, signal, time
from pathlib import Path
folder = Path(folder)
def draw(name, value):
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / f"{name}.png").write_text(str(value))
def wait_for(condition):
    deadline = time.time() + 60
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Writes a notebook that knows the test's folder, and can draw and wait."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path / "notebooks")

    def write(name, parameters="seed = 0", code=""):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        write_notebook(path, f"{parameters}\nfolder = {str(tmp_path)!r}", HEAD + code)
        return path

    return write


@pytest.fixture
def config(tmp_path, book, monkeypatch):
    monkeypatch.setattr(Config, "trained", lambda *_: True)  # these notebooks train nothing
    book("01_look", "seed = 0", "draw('01-1-a', seed)")
    book("04_training", "architecture = ''\nepochs = 1\ndata_dir = ''",
         "print('  1/2  0.5 *')  # log\ndraw(f'04-1-a-{architecture}', epochs)")  # fmt: skip
    book("08_compare", "architectures = ''\ntarget = 0.95", "draw('08-1-a', architectures)")
    return Config(
        output_dir=str(tmp_path / "run"), figures_dir=str(tmp_path / "figures"),
        architectures=("resnet50", "vit_b_16"), epochs=2,
    )  # fmt: skip


def states(config, **extra):
    return [run.state_of(step) for step in run.plan(config, "data", extra)]


def run_all(config, count=None, **options):
    run.run(config, run.plan(config, "data")[:count], **options)


def keys(config, **options):
    return {step.name: step.key for step in run.plan(config, "data", **options)}


def test_the_comparison_comes_last_and_again_when_chapter_11_has_changed(config, book):
    book("11_pause", "seed = 0", "draw('11-1-a', seed)")
    before = keys(config)
    assert list(before) == ["01_look", *TRAININGS, "11_pause", "08_compare"]
    book("11_pause", "seed = 0", "draw('11-1-a', seed + 1)")
    after = keys(config)
    assert [name for name in after if after[name] != before[name]] == ["11_pause", "08_compare"]
    steps = {step.chapter: step for step in run.plan(config, "data")}
    assert steps["08"].waits_for(steps["11"]) and not steps["11"].waits_for(steps["08"])


def test_the_plan_runs_training_once_per_architecture(config):
    steps = run.plan(config, "data", {"target": 0.9})
    assert [step.name for step in steps] == ["01_look", *TRAININGS, "08_compare"]
    assert steps[1].parameters == {
        "architecture": "resnet50", "epochs": 2, "data_dir": config.data_dir
    }
    assert steps[3].parameters == {"architectures": "resnet50,vit_b_16", "target": 0.9}


def test_every_training_is_a_step_with_a_seed_and_a_folder_of_its_own(config, book, tmp_path):
    book("04_training", "architecture = ''\ntraining_seed = 0\noutput_dir = ''", "training_seed")
    several = dataclasses.replace(config, trainings=3)
    of_one = [step for step in run.plan(several, "data") if "resnet50" in step.parameters.values()]
    assert [step.name for step in of_one] == [
        "04_training-resnet50", "04_training-resnet50-2", "04_training-resnet50-3"
    ]  # fmt: skip
    assert [step.parameters["training_seed"] for step in of_one] == [1, 2, 3]
    folders = [step.parameters["output_dir"] for step in of_one]
    output = Path(config.output_dir)
    assert folders == [str(output), *(str(output / "trainings" / n) for n in "23")]
    run_all(several)
    assert set(states(several)) == {"done"}
    assert (output / "trainings" / "3" / "notebooks" / f"{of_one[2].name}.ipynb").exists()
    more = dataclasses.replace(config, trainings=4)
    stale = [step.name for step in run.plan(more, "data") if run.state_of(step) != "done"]
    assert stale == ["04_training-resnet50-4", "04_training-vit_b_16-4", "08_compare"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"seed": 1}, ["01_look", *TRAININGS, "08_compare"]),
        ({"epochs": 3}, [*TRAININGS, "08_compare"]),
        ({"architectures": ("resnet50", "a")}, ["04_training-a", "08_compare"]),
        ({"learning_rate": 1.0}, [*TRAININGS, "08_compare"]),
        ({"device": "cpu"}, []),  # no notebook here declares it
        ({"data_dir": "elsewhere"}, []),  # the data are the same
    ],
)
def test_a_change_touches_only_what_depends_on_it(config, values, names):
    before, after = keys(config), keys(dataclasses.replace(config, **values))
    assert [name for name in after if before.get(name) != after[name]] == names


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"seed": 1, "epochs": 3, "target": 0.9}, "epochs, seed cannot be set with -p"),
        ({"tarjet": 0.9}, r"no notebook has a parameter tarjet; .*target"),
    ],
)
def test_a_parameter_that_cannot_be_set_is_named_before_anything_runs(config, extra, message):
    with pytest.raises(MelanomaError, match=message):
        run.plan(config, "data", extra)


def test_masks_touch_every_notebook_and_no_training(config):
    before, after = (run.plan(config, "data", contents=masks) for masks in ("", "some"))
    assert all(a.key != b.key for a, b in zip(before, after, strict=True))
    assert [a.training_key for a in before] == [b.training_key for b in after]


def test_outputs_of_an_earlier_execution_do_not_pass_for_current(config, book, tmp_path):
    run_all(config, 1)
    old = tmp_path / "figures" / "01-1-a.png"
    assert old.exists()
    book("01_look", code="draw('01-1-b', 'b')")
    run_all(config, 1)
    assert not old.exists() and old.with_name("01-1-b.png").exists()


def test_a_step_has_no_figures_of_a_network_whose_name_begins_alike(config):
    config = dataclasses.replace(config, architectures=("resnet50", "resnet50.tv_in1k"))
    config.figures.mkdir()
    for name in config.architectures:
        (config.figures / f"04-1-a-{name}.png").touch()
    for step in run.plan(config, "data")[1:3]:
        names = {f"figures/04-1-a-{step.parameters['architecture']}.png"}
        assert set(run._outputs(step)) == names


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_whose_record_is_damaged_or_of_another_version_is_done_again(config, whole):
    step = run.plan(config, "data")[0]
    record = {"schema": 2, "state": "done", "key": step.key, "outputs": {"/a": 1}}
    path = write_json(run.step_status_path(step), record)
    path.write_text(path.read_text()[: None if whole else 20])
    assert run.state_of(step) == "stale"
    run_all(config, 1)
    assert run.state_of(step) == "done"


def test_a_run_leaves_figures_notebooks_and_a_log_and_is_then_up_to_date(
    config, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("MELANOMA_HEADLESS")
    run_all(config)
    assert "MELANOMA_HEADLESS" not in os.environ  # that of the notebooks
    assert {p.name: p.read_text() for p in (tmp_path / "figures").iterdir()} == {
        "01-1-a.png": "42", "04-1-a-resnet50.png": "2", "04-1-a-vit_b_16.png": "2",
        "08-1-a.png": "resnet50,vit_b_16",
    }  # fmt: skip
    assert len(list((tmp_path / "run" / "notebooks").glob("*.ipynb"))) == 4
    assert "1/2" in (tmp_path / "run" / run.CELLS_LOG).read_text()
    assert "04_training-vit_b_16:   1/2  0.5 *" in capfd.readouterr().out  # epochs are shown, too
    start = time.perf_counter()
    run_all(config)
    assert capfd.readouterr().out.count("up to date") == 4
    assert time.perf_counter() - start < 5
    assert states(config, target=0.9) == ["done", "done", "done", "stale"]


def test_a_step_is_stale_when_what_it_left_is_changed_or_gone(config, tmp_path):
    run_all(config)
    for damage in (lambda path: path.write_text("other"), Path.unlink):
        damage(tmp_path / "figures" / "08-1-a.png")
        assert states(config) == ["done", "done", "done", "stale"]


def test_a_step_is_stale_when_what_it_reads_was_made_in_another_way(config, monkeypatch):
    """Chapters 08 and 11 read what chapter 07 leaves; chapter 01 is read by nobody."""
    monkeypatch.undo()
    before = keys(config)
    after = keys(config, extra={"faithful_images": 8})
    assert {name[:2] for name in after if after[name] != before[name]} == {"07", "08", "11"}


def test_a_step_is_stale_when_the_run_folder_holds_another_training(config, monkeypatch):
    monkeypatch.undo()
    step = next(s for s in run.plan(config, "data") if s.name.startswith("04"))
    record = {"schema": run.SCHEMA, "state": "done", "key": step.key, "outputs": {}}
    write_json(run.step_status_path(step), record)
    path = Path(config.output_dir) / step.parameters["architecture"] / "run.json"
    assert run.state_of(step) == "stale"
    asked = {"training_key": step.training_key, "epochs": config.epochs, "finished": True}
    for change in ({}, {"epochs": 1}, {"training_key": "other"}, {"finished": False}):
        write_json(path, asked | change)
        assert run.state_of(step) == ("stale" if change else "done")


def test_a_failing_notebook_stops_the_run_and_keeps_what_was_there(config, book, tmp_path):
    run_all(config)
    target = tmp_path / "run" / "notebooks" / "08_compare.ipynb"
    good, executed = (run.NOTEBOOKS / target.name).read_bytes(), target.read_bytes()
    path = book("08_compare", code="raise ValueError('no such thing')")
    with pytest.raises(MelanomaError, match=r"08_compare failed: ValueError: no such thing \(see"):
        run_all(config)
    assert target.read_bytes() == executed
    assert target.with_suffix(".failed.ipynb").exists()
    assert states(config) == ["done", "done", "done", "failed"]
    path.write_bytes(good)
    run_all(config)
    assert states(config) == ["done"] * 4


@both_kinds
def test_a_process_killed_for_memory_fails_its_step_and_the_next_run_goes_on(
    config, book, tmp_path, monkeypatch, forking
):
    monkeypatch.setattr(execute, "FORKS", forking)
    code = "first = not (folder / 'seen').exists()\n(folder / 'seen').touch()\n"
    book("04_training", "architecture = ''",
         code + "if first:\n    os.kill(os.getpid(), signal.SIGKILL)")  # fmt: skip
    told = r"04_training-resnet50 failed: .*died; run again to go on, with fewer --jobs if mem"
    with pytest.raises(MelanomaError, match=told):
        run_all(config)
    assert states(config) == ["done", "failed", "done", "waiting"]
    run_all(config)
    assert states(config) == ["done"] * 4


def test_steps_run_side_by_side_and_later_chapters_wait(config, book):
    """Each training waits for the other one, so that one at a time would never end."""
    wait = "wait_for(lambda: all((folder / a).exists() for a in ('resnet50', 'vit_b_16')))"
    book("04_training", "architecture = ''", f"(folder / architecture).touch()\n{wait}")
    book("08_compare", "architectures = ''",
         "assert all((folder / a).exists() for a in architectures.split(','))\n"
         f"assert os.environ['OMP_NUM_THREADS'] == '{usable_cores()}'")  # fmt: skip
    run_all(config, jobs=2)
    assert states(config) == ["done"] * 4  # the last one with the machine for itself


def test_a_chapter_begins_when_the_trainings_are_done_whatever_else_runs(config, book):
    """Chapter 01 waits for what chapter 05 leaves, so that one after the other would never end."""
    book("01_look", code="wait_for((folder / 'left').exists)")
    book("05_read", code="(folder / 'left').touch()")
    run_all(config, jobs=2)
    assert states(config) == ["done"] * 5


def test_a_single_training_has_the_machine_for_itself(config, book):
    config = dataclasses.replace(config, architectures=("resnet50",))
    book("04_training", "architecture = ''",
         f"time.sleep(1)\nassert os.environ['OMP_NUM_THREADS'] == '{usable_cores()}'\n"
         "assert not (folder / 'run' / 'steps' / '01_look.json').exists()")  # fmt: skip
    steps = run.plan(config, "data")
    run.run(config, steps[1:] + steps[:1], jobs=2)  # the training first, as `melanoma run` does
    assert states(config) == ["done"] * 3


@pytest.mark.parametrize(("fails", "comparison"), [("01_look", "done"), ("05_read", "waiting")])
def test_a_failure_stops_only_what_reads_what_was_to_be_left(config, book, fails, comparison):
    book("05_read")
    book(fails, code="raise ValueError('blind')")
    with pytest.raises(MelanomaError, match=f"{fails} failed: ValueError: blind"):
        run_all(config)
    found = dict(zip(keys(config), states(config), strict=True))
    assert found.pop(fails) == "failed" and found.pop("08_compare") == comparison
    assert set(found.values()) == {"done"}


def test_nothing_runs_beside_the_comparison(config, book):
    book("12_other")
    steps = {step.chapter: step for step in run.plan(config, "data")}
    assert steps["08"].waits_for(steps["12"]) and not steps["08"].reads(steps["12"])
    assert all(steps["08"].waits_for(step) for name, step in steps.items() if name != "08")


def test_whatever_hinders_a_step_is_its_error_and_no_other_steps(config, monkeypatch):
    def start(function, notebook, *arguments, **options):
        if "01" in notebook.stem:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return execute.start_process(function, notebook, *arguments, **options)

    monkeypatch.setattr(run, "start_process", start)
    with pytest.raises(MelanomaError, match=r"01_look failed: OSError: .*Cannot allocate memory"):
        run_all(config)
    assert states(config) == ["failed", "done", "done", "done"]


@both_kinds
def test_steps_side_by_side_have_a_device_each_and_no_key_knows_it(
    config, book, tmp_path, monkeypatch, forking
):
    """Four architectures on two devices: each device has two at most, and both have some."""
    monkeypatch.setattr(execute, "FORKS", forking)
    config = dataclasses.replace(config, architectures=("a", "b", "c", "d"))
    book("04_training", "architecture = ''",
         "(folder / f'on-{architecture}').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
         "wait_for(lambda: len(list(folder.glob('on-*'))) > 1)")  # fmt: skip
    run_all(config, jobs=2, devices=["GPU-5", "GPU-7"])
    used = [path.read_text() for path in tmp_path.glob("on-*")]
    assert set(used) == {"GPU-5", "GPU-7"} and len(used) == 4
    assert states(config) == ["done"] * 6


def test_two_runs_cannot_share_a_folder(config, tmp_path):
    holder = pytest.raises(MelanomaError, match=f"in use by process {os.getpid()} on")
    with lock(tmp_path / "run" / run.LOCK), holder:
        run_all(config)


def test_names_are_not_filled_in(config, book, tmp_path, monkeypatch):
    """papermill takes what stands between braces in a path for a parameter's name."""
    folder = tmp_path / "{seed} {0} %d {"
    (tmp_path / "notebooks").rename(folder)
    monkeypatch.setattr(run, "NOTEBOOKS", folder)
    config = dataclasses.replace(config, output_dir=str(folder / "run"))
    run_all(config, 1)
    assert (folder / "run" / "notebooks" / "01_look.ipynb").exists()
    (folder / "01_look.ipynb").unlink()
    write_notebook(folder / "02_fail.ipynb", "seed = 0", "1 / 0")
    with pytest.raises(MelanomaError, match=r"02_fail failed: ZeroDivisionError"):
        run_all(config, 1)


@pytest.mark.skipif(not execute.FORKS, reason="processes are forked on Linux only")
def test_a_fork_server_that_is_killed_is_started_again(config, book):
    book("01_look", code="os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1)")
    run_all(config, 2)
    assert states(config)[:2] == ["done", "done"]


SCRIPT = """
import sys
from pathlib import Path
from melanoma_lib import cli
from melanoma_lib.config import Config
from melanoma_lib.pipeline import execute, run
def run_notebooks(options):
    run.NOTEBOOKS, execute.FORKS = Path(sys.argv[1]), {forking}
    execute.PRELOAD = "json"  # is there at once
    config = Config(output_dir=sys.argv[2], figures_dir=sys.argv[2])
    run.run(config, run.plan(config, "data")[:1], jobs=2)
cli.run.run_notebooks = run_notebooks
if __name__ == "__main__":
    sys.exit(cli.main(["run"]))
"""


@pytest.mark.parametrize(
    ("number", "forking", "whole_group"),
    [
        (signal.SIGKILL, False, False),
        (signal.SIGKILL, True, False),
        (signal.SIGINT, False, True),
        (signal.SIGINT, True, True),
        (signal.SIGTERM, True, False),  # `kill`, docker stop
        (signal.SIGTERM, False, True),  # a scheduler, to all processes
        (signal.SIGHUP, True, True),  # the terminal is closed
    ],
)
def test_what_ends_a_run_ends_its_notebook_and_the_next_run_goes_on(
    config, book, tmp_path, number, forking, whole_group
):
    """A training that went on unseen would meet the next run; an epoch is written to its end."""
    book(
        "01_look",
        code="from concurrent.futures import ThreadPoolExecutor\n"
        "first = not (folder / 'pid').exists()\n"
        "def write():\n    time.sleep(1)\n    (folder / 'written').touch()\n"
        "with ThreadPoolExecutor() as writer:\n"
        "    writer.submit(write)\n"
        "    (folder / 'pid').write_text(f'{os.getpid()}\\n')\n"
        "    time.sleep(120 if first else 0)",
    )
    (script := tmp_path / "script.py").write_text(SCRIPT.format(forking=forking))
    process = subprocess.Popen(
        [sys.executable, script, run.NOTEBOOKS, tmp_path / "run"], stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear_signals,
    )  # fmt: skip
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    for _ in range(2):  # as by one who is impatient
        (os.killpg if whole_group else os.kill)(process.pid, number)
        time.sleep(0.05)
    _, error = process.communicate(timeout=60)
    wait_for(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    assert process.returncode in (128 + number, -number)  # a shell shows both alike
    if number != signal.SIGKILL:
        assert "interrupted; the same command goes on from here" in error
        # A second Ctrl-C asks for the end at once.
        assert (tmp_path / "written").exists() or number != signal.SIGTERM
    assert read_json(tmp_path / "run" / "steps" / "01_look.json")["state"] == "started"
    run_all(config, 1)
    assert states(config)[0] == "done"


def test_a_notebook_that_cannot_be_written_is_a_failed_step(config, book, monkeypatch):
    """A file-size limit stands for a full disk; a fork of the server would not have it."""
    monkeypatch.setattr(execute, "FORKS", False)
    book("01_look", code="print('x' * 300_000)")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(MelanomaError, match=r"01_look failed: OSError: .*File too large"):
            run_all(config, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert states(config)[0] == "failed"
