"""Trackers and notifications hear what happened, and cannot harm what happens."""

import http.server
import json
import re
import threading

import pytest
from helpers import ROOT

from melanoma_lib.cli import main
from melanoma_lib.core import environment
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_history, write_json
from melanoma_lib.training import callbacks
from melanoma_lib.training.callbacks import on_epoch_end, run_callbacks


def row(epoch, accuracy=0.5, best=False):
    numbers = dict.fromkeys(callbacks.METRICS, float(epoch))
    return numbers | {"epoch": epoch, "val_accuracy": accuracy, "best": best, "parts": 1}


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / "night" / "resnet50" / "run.json", {"training_key": "abc"})
    return tmp_path / "night" / "resnet50"


@pytest.fixture
def inbox():
    """A server on this machine that answers like a service and keeps what it is told."""
    messages = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages.append((body["title"], body["message"]))
            self.send_response(500 if server.broken else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.messages, server.broken = messages, False
    server.url = f"json://someone:secret@127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_tensorboard_has_every_epoch_once_though_one_was_repeated(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with run_callbacks("tensorboard", "", "run"):
        for epoch in (1, 2, 2, 3):  # killed after the second was told and before it was kept
            on_epoch_end(folder, row(epoch), 3)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [
        (1, 1.0), (2, 2.0), (3, 3.0)
    ]
    assert set(events.Tags()["scalars"]) == set(callbacks.METRICS)


def test_mlflow_has_one_run_a_training_in_the_run_folder(folder):
    from mlflow import MlflowClient

    with run_callbacks("mlflow", "", "run"):
        for epoch in (1, 2):
            on_epoch_end(folder, row(epoch), 2)
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    number = client.get_experiment_by_name("night").experiment_id
    (run,) = client.search_runs([number])
    assert run.info.run_name == "resnet50" and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 1.0), (2, 2.0)]


def test_people_are_told_of_new_bests_and_of_the_end(folder, inbox):
    with run_callbacks("", inbox.url, "melanoma run night", "end,best"):
        for epoch, best in ((1, True), (2, False), (3, True)):
            on_epoch_end(folder, row(epoch, 0.8, best), 4)
    assert inbox.messages == [
        ("resnet50 has a new best", "epoch 3 of 4: validation accuracy 0.800"),
        ("melanoma run night is done", "All that was asked for is there."),
    ]
    on_epoch_end(folder, row(4, 0.9, True), 4)  # nobody listens any more
    assert len(inbox.messages) == 2


@pytest.mark.parametrize("error", [MelanomaError("the disk is full"), KeyboardInterrupt()])
def test_people_are_told_of_a_failure_which_stays_one(inbox, error):
    with pytest.raises(type(error)), run_callbacks("", inbox.url, "melanoma run night"):
        raise error
    ((title, text),) = inbox.messages
    assert title == "melanoma run night failed" and text == (str(error) or "KeyboardInterrupt")


@pytest.mark.parametrize(("notify_on", "told"), [("end,failure", 1), ("failure", 0), ("best", 1)])
def test_people_are_told_of_what_they_asked_for_with_the_results_first_lines(
    folder, inbox, notify_on, told
):
    with run_callbacks("", inbox.url, "melanoma run night", notify_on) as message:
        on_epoch_end(folder, row(2, 0.8, True), 4)
        message.append("all is done, in 3 s\n\n  ResNet-50: melanoma AUC 0.990 [0.972, 1.000]")
    assert len(inbox.messages) == told
    if notify_on.startswith("end"):
        assert inbox.messages[0][1] == message[0]
    failure = pytest.raises(MelanomaError)
    with failure, run_callbacks("", inbox.url, "night", notify_on) as message:
        message.append("1 of 12 steps failed")
        raise MelanomaError("the disk is full")
    assert ("night failed", "the disk is full\n\n1 of 12 steps failed") in inbox.messages or (
        notify_on == "best"
    )


def test_the_addresses_in_the_documents_are_those_of_their_services():
    text = (ROOT / "docs" / "cloud.md").read_text()
    written = re.findall(r"--notify '([^']*[A-Z_]{5}[^']*)'", text)
    kinds = [type(service).__name__ for url in written for service in callbacks._address(url)]
    assert kinds == ["NotifyEmail", "NotifySlack", "NotifyDiscord"]


def test_an_occasion_that_does_not_exist_is_refused_before_the_run():
    with (
        pytest.raises(MelanomaError, match="knows end, failure, best, not always"),
        run_callbacks("", "", "run", "end,always"),
    ):
        pass


def test_only_the_first_of_several_processes_speaks(folder, inbox, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with run_callbacks("tensorboard", inbox.url, "run"):
        on_epoch_end(folder, row(2, 0.9, True), 2)
    assert not inbox.messages and not (folder / "tensorboard").exists()


def test_a_listener_that_fails_costs_one_line(folder, inbox, monkeypatch, capsys):
    inbox.broken = True
    (folder / "tensorboard").write_text("in the way")
    with run_callbacks("tensorboard", inbox.url, "run"):
        on_epoch_end(folder, row(2, 0.9, True), 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "warning: tensorboard failed", "warning: send failed", "warning: send failed"
    ]
    assert all("secret" not in line for line in lines)


def test_what_cannot_work_is_said_before_the_run(monkeypatch):
    unknown = pytest.raises(MelanomaError, match="apprise does not know")
    with unknown as caught, run_callbacks("", "carrier://secret", "run"):
        pass
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(environment, "find_spec", lambda _: None)
    absent = pytest.raises(MelanomaError, match=r"mlflow is not installed.* -e '\.\[listen\]'")
    with absent, run_callbacks("mlflow", "", "run"):
        pass


def test_a_training_is_followed_and_nothing_of_it_depends_on_who_listens(
    dataset, tmp_path, inbox, capsys
):
    def train(run, *flags):
        common = [
            "train", "test_vit", "--data-dir", str(dataset), "--output-dir", str(tmp_path / run),
            "--no-pretrained", "--image-size", "32", "--batch-size", "16", "--epochs", "2",
        ]  # fmt: skip
        assert main([*common, *flags]) == 0
        return tmp_path / run / "test_vit"

    silent = train("silent")
    told = "--notify", inbox.url, "--notify-on", "best,end"
    followed = train("followed", "--track", "tensorboard", *told)
    assert (silent / "model.safetensors").read_bytes() == (
        followed / "model.safetensors").read_bytes()
    assert list((followed / "tensorboard").iterdir())
    bests = [line for line in read_history(followed)[1:] if line["best"] == "True"]
    assert [title for title, _ in inbox.messages] == [
        *["test_vit has a new best"] * len(bests), "melanoma train test_vit is done"
    ]
    written = [path.read_bytes() for path in (tmp_path / "followed").rglob("*.*") if path.is_file()]
    assert written and not any(b"secret" in content for content in written)
