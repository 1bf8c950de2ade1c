import dataclasses
import time
from pathlib import Path

from melanoma_lib import batch
from melanoma_lib.artifacts import lock, write_csv, write_json
from melanoma_lib.config import Config
from melanoma_lib.status import duration, report, time_left


def config_of(dataset, tmp_path):
    return Config(
        data_dir=str(dataset), output_dir=str(tmp_path / "run"), architectures=("a", "b"), epochs=10
    )


def epochs(config, architecture, count, seconds=60.0):
    rows = [{"epoch": n + 1, "seconds": seconds} for n in range(count)]
    write_csv(Path(config.output_dir) / architecture / "history.csv", rows)


def test_the_time_left_comes_from_measured_epochs(dataset, tmp_path):
    config = config_of(dataset, tmp_path)
    assert "a, b, whose first epoch" in time_left(config)
    epochs(config, "a", 4)
    assert time_left(config).startswith("training left: 6 min 00 s, and b,")
    epochs(config, "b", 10)
    assert time_left(config) == "training left: 6 min 00 s"


def test_an_interrupted_step_is_not_called_running(dataset, tmp_path):
    config = config_of(dataset, tmp_path)
    step = next(s for s in batch.plan(config, "x") if s.name.endswith("-a"))
    write_json(batch.marker(config, step), {"state": "started", "started": 0, "key": step.key})
    epochs(config, "a", 3)
    line = next(line for line in report(config).splitlines() if line.startswith(step.name))
    assert "interrupted" in line and "3 of 10 epochs" in line
    with lock(Path(config.output_dir) / batch.LOCK):
        assert "running" not in report(config)  # begun by an earlier batch
        record = {"state": "started", "started": time.time() + 1, "key": step.key}
        write_json(batch.marker(config, step), record)
        assert "running" in report(config)


def test_a_done_step_says_how_long_it_took(dataset, tmp_path):
    config = dataclasses.replace(config_of(dataset, tmp_path))
    from melanoma_lib.data.metadata import open_dataset

    step = batch.plan(config, open_dataset(dataset).fingerprint)[0]
    write_json(
        batch.marker(config, step),
        {"state": "done", "started": 0, "seconds": 75, "key": step.key, "outputs": {}},
    )
    assert "done         1 min 15 s" in report(config)


def test_durations_read_well():
    assert [duration(s) for s in (4.4, 75, 7500)] == ["4 s", "1 min 15 s", "2 h 05 min"]
