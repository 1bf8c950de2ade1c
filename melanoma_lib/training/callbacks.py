"""Callbacks after every epoch: metrics to TensorBoard or MLflow, notifications by apprise.

They are chosen by environment variables, which notebooks inherit, and not by the configuration:
so they do not change what identifies a training, and an address that holds a password is written
to no file. A callback that fails costs a warning, never the run.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from melanoma_lib.core.environment import environment_variables, require_packages
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json

TRACK, NOTIFY, NOTIFY_ON = "MELANOMA_TRACK", "MELANOMA_NOTIFY", "MELANOMA_NOTIFY_ON"
OCCASIONS = ("end", "failure", "best")  # to notify of
TRACKERS = ("tensorboard", "mlflow")
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second",
           "seconds")  # fmt: skip


@contextlib.contextmanager
def run_callbacks(
    track: str, notify: str, name: str, notify_on: str = ",".join(OCCASIONS)
) -> Iterator[list[str]]:
    """Enables callbacks for a run and the processes it starts, and notifies of the run's end.

    track: one of `TRACKERS` or ""; notify: an address of apprise or ""; notify_on: of `OCCASIONS`,
    with commas. Yields a list: what the block appends is sent at the end. Raises `MelanomaError`
    when a package is not installed, apprise does not know the address, or there is no such
    occasion.
    """
    require_packages("listen", *filter(None, (track, notify and "apprise")))
    if notify and not _address(notify):
        raise MelanomaError("apprise does not know the address that --notify names")
    if unknown := set(notify_on.split(",")) - set(OCCASIONS):
        raise MelanomaError(
            f"--notify-on knows {', '.join(OCCASIONS)}, not {summarize_items(sorted(unknown))}"
        )
    asked = {TRACK: track, NOTIFY: notify, NOTIFY_ON: notify_on}
    message: list[str] = []
    with environment_variables(**{name: value for name, value in asked.items() if value}):
        try:
            yield message
        except BaseException as error:
            reason = str(error) or type(error).__name__
            _notify("failure", f"{name} failed", "\n\n".join(filter(None, [reason, *message])))
            raise
        else:
            text = "\n\n".join(message) or "All that was asked for is there."
            _notify("end", f"{name} is done", text)


def on_epoch_end(folder: Path, row: dict, epochs: int) -> None:
    """Passes on a finished epoch of the training in `folder`; `row` is its row of history.csv."""
    if tracker := {"tensorboard": _tensorboard, "mlflow": _mlflow}.get(os.environ.get(TRACK, "")):
        _safely(TRACK, tracker, folder, row)
    if row["best"] and row["epoch"] > 1:  # the first is always the best so far
        text = f"epoch {row['epoch']} of {epochs}: validation accuracy {row['val_accuracy']:.3f}"
        _notify("best", f"{folder.name} has a new best", text)


def _notify(occasion: str, title: str, text: str) -> None:
    if occasion in os.environ.get(NOTIFY_ON, ""):
        _safely(NOTIFY, _send, title, text)


def _safely(variable: str, callback: Callable, *arguments: object) -> None:
    """Calls a callback if its variable is set; any exception in it becomes a line of warning."""
    if not os.environ.get(variable) or int(os.environ.get("RANK", 0)):
        return  # under torchrun, only process 0
    try:
        callback(*arguments)
    except Exception as error:  # of other packages, of any kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"warning: {callback.__name__.strip('_')} failed ({reason}); the run goes on",
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

    # What a killed training wrote for this epoch or later is discarded.
    with SummaryWriter(str(folder / "tensorboard"), purge_step=row["epoch"]) as writer:
        for name in METRICS:
            writer.add_scalar(name, row[name], row["epoch"])


def _mlflow(folder: Path, row: dict) -> None:
    """Logs to the MLflow run of this training, found by its key, in the run folder's database."""
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports every table it creates
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
    for measure in METRICS:
        client.log_metric(run.info.run_id, measure, row[measure], step=row["epoch"])
    client.set_terminated(run.info.run_id)  # more epochs may still follow
