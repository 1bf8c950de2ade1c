"""Listeners: who is told how a run goes on: TensorBoard, MLflow, and people.

Which of them listen stands in the environment, which notebooks inherit, and not in the
configuration: they cannot touch what a run is known by, and an address with a password in it is
written nowhere. A listener that fails costs a warning, never the run.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json

TRACK, NOTIFY = "MELANOMA_TRACK", "MELANOMA_NOTIFY"
TRACKERS = ("tensorboard", "mlflow")
NUMBERS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second",
           "seconds")  # fmt: skip


@contextlib.contextmanager
def listening(track: str, notify: str, name: str) -> Iterator[None]:
    """Turns listeners on for a run and the processes it starts, and reports how the run ends.

    Raises `MelanomaError` when what they need is not installed, or the address is unknown.
    """
    for package in filter(None, (track, notify and "apprise")):
        if not importlib.util.find_spec(package):
            raise MelanomaError(
                f"{package} is not installed; in the project's folder: pip install -e '.[listen]'"
            )
    if notify and not _address(notify):
        raise MelanomaError("apprise does not know the address that --notify names")
    asked = {variable: value for variable, value in ((TRACK, track), (NOTIFY, notify)) if value}
    os.environ.update(asked)
    try:
        yield
    except BaseException as error:
        _safely(NOTIFY, _send, f"{name} failed", str(error) or type(error).__name__)
        raise
    else:
        _safely(NOTIFY, _send, f"{name} is done", "All that was asked for is there.")
    finally:
        for variable in asked:
            del os.environ[variable]


def epoch_ended(folder: Path, row: dict, epochs: int) -> None:
    """Tells of an epoch that a training in `folder` has finished: its line of the history."""
    if tracker := {"tensorboard": _tensorboard, "mlflow": _mlflow}.get(os.environ.get(TRACK, "")):
        _safely(TRACK, tracker, folder, row)
    if row["best"] and row["epoch"] > 1:  # the first is always the best so far
        text = f"epoch {row['epoch']} of {epochs}: validation accuracy {row['val_accuracy']:.3f}"
        _safely(NOTIFY, _send, f"{folder.name} has a new best", text)


def _safely(variable: str, listener: Callable, *what: object) -> None:
    """Calls a listener if it is turned on; whatever goes wrong there is one line of warning."""
    if not os.environ.get(variable) or int(os.environ.get("RANK", 0)):
        return  # of the processes that torchrun numbers, the first speaks for all
    try:
        listener(*what)
    except Exception as error:  # theirs, of any kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"warning: {listener.__name__.strip('_')} failed ({reason}); the run goes on",
              flush=True)  # fmt: skip


def _address(notify: str):
    import apprise

    addresses = apprise.Apprise()
    return addresses if addresses.add(notify) else None


def _send(title: str, text: str) -> None:
    if not _address(os.environ[NOTIFY]).notify(title=title, body=text):
        raise OSError("the message was not accepted")


def _tensorboard(folder: Path, row: dict) -> None:
    from torch.utils.tensorboard import SummaryWriter

    # What a killed training wrote of this epoch or later is not shown twice.
    with SummaryWriter(str(folder / "tensorboard"), purge_step=row["epoch"]) as writer:
        for name in NUMBERS:
            writer.add_scalar(name, row[name], row["epoch"])


def _mlflow(folder: Path, row: dict) -> None:
    """One MLflow run a training, found again by its key; in the run folder's own database."""
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
    client = MlflowClient(
        os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.parent / 'mlflow.db'}"
    )
    key = read_json(folder / "run.json")["training_key"]
    name = folder.parent.name
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    known = client.search_runs([number], f"tags.training_key = '{key}'")
    run = known[0] if known else client.create_run(
        number, run_name=folder.name, tags={"training_key": key}
    )
    for measure in NUMBERS:
        client.log_metric(run.info.run_id, measure, row[measure], step=row["epoch"])
    client.set_terminated(run.info.run_id)  # as far as it is; more epochs may follow
