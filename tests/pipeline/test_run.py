"""The batch on three tiny notebooks: what runs, what is left alone, what a failure leaves."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.core.locks import lock, locked
from melanoma_lib.pipeline import execute, run

WRITE = "from pathlib import Path\nPath(figures_dir).mkdir(parents=True, exist_ok=True)\n"

both_kinds = pytest.mark.parametrize("forking", [False, True], ids=["ordinary", "forked"])


def notebook(path, parameters, code):
    cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(book, path)


@pytest.fixture
def config(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(run, "NOTEBOOKS", folder)
    monkeypatch.setattr(run, "_trained", lambda *_: True)  # these notebooks train nothing
    draw = WRITE + "(Path(figures_dir) / '{}.png').write_text(str({}))"
    notebook(
        folder / "01_look.ipynb", "seed = 0\nfigures_dir = ''", draw.format("01-1-a", "seed")
    )
    notebook(
        folder / "04_training.ipynb",
        "architecture = ''\nepochs = 1\nfigures_dir = ''",
        "print('  1/2  0.5 *')\n" + WRITE
        + "(Path(figures_dir) / f'04-1-a-{architecture}.png').write_text(str(epochs))",
    )
    notebook(
        folder / "08_compare.ipynb",
        "architectures = ''\ntarget = 0.95\nfigures_dir = ''",
        draw.format("08-1-a", "architectures"),
    )
    return Config(
        output_dir=str(tmp_path / "run"),
        figures_dir=str(tmp_path / "figures"),
        architectures=("resnet50", "vit_b_16"),
        epochs=2,
    )


def states(config, **extra):
    return [run.state_of(config, step) for step in run.plan(config, "data", extra)]


def test_the_plan_runs_training_once_per_architecture(config):
    steps = run.plan(config, "data")
    assert [step.name for step in steps] == [
        "01_look", "04_training-resnet50", "04_training-vit_b_16", "08_compare"
    ]
    assert steps[1].parameters == {
        "architecture": "resnet50", "epochs": 2, "figures_dir": config.figures_dir
    }
    assert steps[3].parameters["architectures"] == "resnet50,vit_b_16"


def test_a_change_touches_only_what_depends_on_it(config):
    def changed(**values):
        before, after = (
            {step.name: step.key for step in run.plan(c, "data")}
            for c in (config, dataclasses.replace(config, **values))
        )
        return [name for name in after if before.get(name) != after[name]]

    training = ["04_training-resnet50", "04_training-vit_b_16"]
    assert changed(seed=1) == ["01_look", *training, "08_compare"]
    assert changed(epochs=3) == [*training, "08_compare"]
    assert changed(architectures=("resnet50", "densenet121")) == [
        "04_training-densenet121", "08_compare"
    ]
    assert changed(learning_rate=1.0) == [*training, "08_compare"]
    assert changed(device="cpu") == []  # no notebook here declares it


def test_what_the_configuration_says_cannot_be_said_twice(config):
    with pytest.raises(MelanomaError, match=r"epochs, seed cannot be set with -p"):
        run.plan(config, "data", {"seed": 1, "epochs": 3, "target": 0.9})


def test_masks_touch_every_notebook_and_no_training(config):
    before, after = (run.plan(config, "data", contents=masks) for masks in ("", "some"))
    assert all(a.key != b.key for a, b in zip(before, after, strict=True))
    assert [a.training_key for a in before] == [b.training_key for b in after]


def test_outputs_of_an_earlier_execution_do_not_pass_for_current(config, tmp_path):
    run.run(config, run.plan(config, "data")[:1])
    old = tmp_path / "figures" / "01-1-a.png"
    assert old.exists()
    notebook(
        run.NOTEBOOKS / "01_look.ipynb", "figures_dir = ''",
        WRITE + "(Path(figures_dir) / '01-1-b.png').write_text('b')",
    )
    run.run(config, run.plan(config, "data")[:1])
    assert not old.exists() and old.with_name("01-1-b.png").exists()


def test_a_step_has_no_figures_of_a_network_whose_name_begins_alike(config):
    config = dataclasses.replace(config, architectures=("resnet50", "resnet50.tv_in1k"))
    figures = {name: config.figures / f"04-1-a-{name}.png" for name in config.architectures}
    config.figures.mkdir()
    for path in figures.values():
        path.touch()
    for step in run.plan(config, "data")[1:3]:
        assert set(run._files(config, step)) == {str(figures[step.parameters["architecture"]])}


def test_a_step_recorded_by_another_version_is_done_again(config):
    step = run.plan(config, "data")[0]
    record = {"schema": 1, "state": "done", "outputs": ["a"]}
    write_json(run.step_status_path(config, step), record)
    assert run.state_of(config, step) == "stale"


def test_an_unknown_parameter_is_named_before_anything_runs(config, tmp_path):
    with pytest.raises(MelanomaError, match=r"no notebook has a parameter tarjet; .*target"):
        run.plan(config, "data", {"tarjet": 0.9})
    assert not (tmp_path / "run").exists()
    assert run.plan(config, "data", {"target": 0.9})[3].parameters["target"] == 0.9


def test_a_run_leaves_figures_notebooks_and_a_log_and_is_then_up_to_date(config, tmp_path, capfd):
    run.run(config, run.plan(config, "data"))
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "01-1-a.png", "04-1-a-resnet50.png", "04-1-a-vit_b_16.png", "08-1-a.png"
    }
    assert (tmp_path / "figures" / "01-1-a.png").read_text() == "42"
    assert len(list((tmp_path / "run" / "notebooks").glob("*.ipynb"))) == 4
    assert "1/2" in (tmp_path / "run" / "run.log").read_text()
    assert "04_training-vit_b_16:   1/2  0.5 *" in capfd.readouterr().out  # epochs are shown, too
    assert states(config) == ["done"] * 4

    start = time.perf_counter()
    run.run(config, run.plan(config, "data"))
    assert capfd.readouterr().out.count("up to date") == 4
    assert time.perf_counter() - start < 5

    (tmp_path / "figures" / "08-1-a.png").unlink()
    assert states(config) == ["done", "done", "done", "stale"]
    assert states(config, target=0.9) == ["done", "done", "done", "stale"]


def test_a_step_is_stale_when_what_it_reads_was_made_in_another_way(config, monkeypatch):
    """Chapter 08 shows what chapter 07 leaves; chapter 01 is read by nobody."""
    monkeypatch.undo()
    before = {step.name: step.key for step in run.plan(config, "data")}

    def changed(**extra):
        return {s.chapter for s in run.plan(config, "data", extra) if s.key != before[s.name]}

    assert changed(faithful_images=8) == {"07", "08"}


def test_a_step_is_stale_when_the_run_folder_holds_another_training(config, monkeypatch):
    monkeypatch.undo()
    step = next(s for s in run.plan(config, "data") if s.name.startswith("04"))
    record = {"schema": run.SCHEMA, "state": "done", "key": step.key, "outputs": {}}
    write_json(run.step_status_path(config, step), record)
    path = Path(config.output_dir) / step.parameters["architecture"] / "run.json"
    asked = {"training_key": step.training_key, "epochs": config.epochs, "finished": True}
    for record, state in (
        (asked, "done"),
        (asked | {"epochs": 1}, "stale"),
        (asked | {"training_key": "other"}, "stale"),
        (asked | {"finished": False}, "stale"),
    ):
        write_json(path, record)
        assert run.state_of(config, step) == state
    path.unlink()
    assert run.state_of(config, step) == "stale"


def test_a_failing_notebook_stops_the_run_and_keeps_what_was_there(config, tmp_path):
    run.run(config, run.plan(config, "data"))
    path = run.NOTEBOOKS / "08_compare.ipynb"
    good = path.read_bytes()
    target = tmp_path / "run" / "notebooks" / "08_compare.ipynb"
    executed = target.read_bytes()
    notebook(path, "architectures = ''", "raise ValueError('no such thing')")
    with pytest.raises(MelanomaError, match=r"08_compare failed: ValueError: no such thing \(see"):
        run.run(config, run.plan(config, "data"))
    assert target.read_bytes() == executed
    assert target.with_suffix(".failed.ipynb").exists()
    assert states(config) == ["done", "done", "done", "failed"]
    path.write_bytes(good)
    run.run(config, run.plan(config, "data"))
    assert states(config) == ["done"] * 4


def test_a_dead_kernel_fails_its_step_and_what_needs_it_but_no_other(config):
    notebook(
        run.NOTEBOOKS / "04_training.ipynb",
        "architecture = ''",
        "import os\nif architecture == 'resnet50':\n    os.kill(os.getpid(), 9)",
    )
    with pytest.raises(MelanomaError, match="04_training-resnet50 failed"):
        run.run(config, run.plan(config, "data"))
    assert states(config) == ["done", "failed", "done", "waiting"]


def test_steps_run_side_by_side_and_later_chapters_wait(config, tmp_path):
    """Each training waits for the other one, so that one at a time would never end."""
    notebook(
        run.NOTEBOOKS / "04_training.ipynb",
        f"architecture = ''\nfolder = {str(tmp_path)!r}",
        "import time\nfrom pathlib import Path\nPath(folder, architecture).touch()\n"
        "deadline = time.time() + 60\n"
        "while not all(Path(folder, a).exists() for a in ('resnet50', 'vit_b_16')):\n"
        "    assert time.time() < deadline\n    time.sleep(0.1)",
    )
    notebook(
        run.NOTEBOOKS / "08_compare.ipynb",
        f"architectures = ''\nfolder = {str(tmp_path)!r}",
        "import os\nfrom pathlib import Path\nassert all(Path(folder, a).exists() for a in "
        "architectures.split(','))\nassert os.environ['OMP_NUM_THREADS'] == str(os.cpu_count())",
    )
    run.run(config, run.plan(config, "data"), jobs=2)
    assert states(config) == ["done"] * 4  # the last one with the machine for itself


def test_a_chapter_begins_when_the_trainings_are_done_whatever_else_runs(config, tmp_path):
    """Chapter 01 waits for what chapter 05 leaves, so that one after the other would never end."""
    code = "import time\nfrom pathlib import Path\nleft = Path(folder, 'left')\n"
    notebook(
        run.NOTEBOOKS / "01_look.ipynb",
        f"folder = {str(tmp_path)!r}",
        code + "deadline = time.time() + 60\n"
        "while not left.exists():\n    assert time.time() < deadline\n    time.sleep(0.1)",
    )
    notebook(
        run.NOTEBOOKS / "05_read.ipynb", f"folder = {str(tmp_path)!r}", code + "left.touch()"
    )
    run.run(config, run.plan(config, "data"), jobs=2)
    assert states(config) == ["done"] * 5


def test_a_single_training_has_the_machine_for_itself(config, tmp_path):
    config = dataclasses.replace(config, architectures=("resnet50",))
    look = tmp_path / "run" / "steps" / "01_look.json"
    notebook(
        run.NOTEBOOKS / "04_training.ipynb",
        "architecture = ''",
        "import os, time\nfrom pathlib import Path\ntime.sleep(1)\n"
        "assert os.environ['OMP_NUM_THREADS'] == str(os.cpu_count())\n"
        f"assert not Path({str(look)!r}).exists()",
    )
    steps = run.plan(config, "data")
    run.run(config, steps[1:] + steps[:1], jobs=2)  # the training first, as `melanoma run` does
    assert states(config) == ["done"] * 3


def test_a_failure_stops_only_what_reads_what_was_to_be_left(config):
    notebook(run.NOTEBOOKS / "01_look.ipynb", "seed = 0", "raise ValueError('blind')")
    notebook(run.NOTEBOOKS / "05_read.ipynb", "seed = 0", "seed")
    with pytest.raises(MelanomaError, match="01_look failed: ValueError: blind"):
        run.run(config, run.plan(config, "data"))
    assert states(config) == ["failed", "done", "done", "done", "waiting"]


@both_kinds
def test_steps_side_by_side_have_a_device_each_and_no_key_knows_it(
    config, tmp_path, monkeypatch, forking
):
    """Four architectures on two devices: each device has two at most, and both have some."""
    monkeypatch.setattr(execute, "FORKS", forking)
    config = dataclasses.replace(config, architectures=("a", "b", "c", "d"))
    notebook(
        run.NOTEBOOKS / "04_training.ipynb",
        f"architecture = ''\nfolder = {str(tmp_path)!r}",
        "import os, time\nfrom pathlib import Path\n"
        "Path(folder, 'on-' + architecture).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "deadline = time.time() + 60\n"
        "while len(list(Path(folder).glob('on-*'))) < 2:\n"
        "    assert time.time() < deadline\n    time.sleep(0.1)",
    )
    steps = run.plan(config, "data")
    run.run(config, steps, 2, ["GPU-5", "GPU-7"])
    used = [path.read_text() for path in tmp_path.glob("on-*")]
    assert set(used) == {"GPU-5", "GPU-7"} and len(used) == 4
    assert run.plan(config, "data") == steps
    assert states(config) == ["done"] * 6


def test_two_runs_cannot_share_a_folder(config, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from melanoma_lib.core.locks import lock\n"
        "with lock(Path(sys.argv[1]) / '.lock'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE
    )
    try:
        holder.stdout.readline()
        assert locked(tmp_path / "run" / ".lock")
        with pytest.raises(MelanomaError, match=f"in use by process {holder.pid} on"):
            run.run(config, run.plan(config, "data"))
    finally:
        holder.kill()
        holder.wait()
    assert not locked(tmp_path / "run" / ".lock")  # a killed holder leaves no lock behind
    with lock(tmp_path / "run" / ".lock"):
        pass


def test_the_environment_of_notebooks_is_put_back(config):
    earlier = os.environ.pop("MELANOMA_HEADLESS", None)
    try:
        run.run(config, run.plan(config, "data")[:1])
        assert "MELANOMA_HEADLESS" not in os.environ
    finally:
        if earlier is not None:
            os.environ["MELANOMA_HEADLESS"] = earlier
    status = read_json(run.step_status_path(config, run.plan(config, "data")[0]))
    assert status["state"] == "done"


@both_kinds
def test_a_killed_batch_takes_its_kernels_with_it(config, tmp_path, forking):
    """SIGKILL to the batch alone: a training that went on unseen would meet the next run."""
    notebook(
        run.NOTEBOOKS / "01_look.ipynb",
        f"folder = {str(tmp_path)!r}",
        "import os, time\nfrom pathlib import Path\n"
        "Path(folder, 'pid').write_text(str(os.getpid()))\ntime.sleep(120)",
    )
    code = (
        "import sys; from pathlib import Path; from melanoma_lib.pipeline import execute, run\n"
        "from melanoma_lib.config import Config\n"
        "if __name__ == '__main__':\n"
        f"    run.NOTEBOOKS, execute.FORKS = Path(sys.argv[1]), {forking}\n"
        "    config = Config(output_dir=sys.argv[2], figures_dir=sys.argv[2])\n"
        "    run.run(config, run.plan(config, 'data')[:1])\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    holder = subprocess.Popen([sys.executable, script, run.NOTEBOOKS, tmp_path / "run"])
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    holder.kill()
    holder.wait()
    wait_for(lambda: not Path(f"/proc/{pid.read_text()}").exists())


@both_kinds
def test_a_kernel_killed_for_memory_is_told_and_the_next_run_goes_on(
    config, tmp_path, monkeypatch, forking
):
    monkeypatch.setattr(execute, "FORKS", forking)
    notebook(
        run.NOTEBOOKS / "04_training.ipynb",
        f"architecture = ''\nseen = {str(tmp_path / 'seen')!r}",
        "import os, signal\nfrom pathlib import Path\n"
        "first = not Path(seen).exists()\nPath(seen).write_text('x')\n"
        "if first:\n    os.kill(os.getpid(), signal.SIGKILL)",
    )
    steps = run.plan(config, "data")
    with pytest.raises(MelanomaError, match="died; run again to go on, with fewer --jobs if mem"):
        run.run(config, steps)
    run.run(config, steps)
    assert states(config) == ["done"] * len(steps)


@pytest.mark.skipif(not execute.FORKS, reason="processes are forked on Linux only")
def test_a_fork_server_that_is_killed_is_started_again(config):
    notebook(
        run.NOTEBOOKS / "01_look.ipynb",
        "seed = 0",
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1)",
    )
    run.run(config, run.plan(config, "data")[:2])
    assert states(config)[:2] == ["done", "done"]


@both_kinds
def test_an_interrupt_ends_everything_and_the_next_run_goes_on(config, tmp_path, forking):
    """Ctrl-C: the kernel ends, the step counts as interrupted, and the run can be repeated."""
    pid = tmp_path / "pid"
    notebook(
        run.NOTEBOOKS / "01_look.ipynb",
        f"pid = {str(pid)!r}\nfigures_dir = ''",
        "import os, time\nfrom pathlib import Path\n"
        "first = not Path(pid).exists()\nPath(pid).write_text(str(os.getpid()))\n"
        "time.sleep(120 if first else 0)",
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from melanoma_lib import cli\n"
        "from melanoma_lib.pipeline import execute, run as batch\n"
        "from melanoma_lib.config import Config\n"
        "def run(options):\n"
        f"    batch.NOTEBOOKS, execute.FORKS = Path(sys.argv[1]), {forking}\n"
        "    config = Config(output_dir=sys.argv[2], figures_dir=sys.argv[2])\n"
        "    batch.run(config, batch.plan(config, 'data')[:1], jobs=2)\n"
        "cli._run = run\n"
        "if __name__ == '__main__':\n    sys.exit(cli.main(['run']))\n"
    )
    command = [sys.executable, script, run.NOTEBOOKS, tmp_path / "run"]
    def heed_interrupts():
        """A shell makes what it runs in the background deaf to them."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    holder = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    wait_for(lambda: pid.exists() and pid.read_text())
    for _ in range(2):  # as by one who is impatient
        holder.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert "interrupted; the same command goes on from here" in holder.communicate(timeout=60)[1]
    assert holder.returncode == 130
    wait_for(lambda: not Path(f"/proc/{pid.read_text()}").exists())
    assert read_json(tmp_path / "run" / "steps" / "01_look.json")["state"] == "started"
    assert subprocess.run(command, check=False).returncode == 0


def test_a_notebook_that_cannot_be_written_is_a_failed_step(config, monkeypatch):
    """A file-size limit stands for a full disk; a fork of the server would not have it."""
    monkeypatch.setattr(execute, "FORKS", False)
    notebook(run.NOTEBOOKS / "01_look.ipynb", "figures_dir = ''", "print('x' * 300_000)")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(MelanomaError, match=r"01_look failed: .*File too large"):
            run.run(config, run.plan(config, "data")[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert states(config)[0] == "failed"


def wait_for(condition, seconds=60):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)
