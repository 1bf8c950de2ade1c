"""One architecture from pixels to bundle: data, training, predictions, temperature, thresholds."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from melanoma_lib.config import PRECISIONS, TRAINING_FIELDS, Config
from melanoma_lib.core.environment import device_name, pick_device, versions
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import (
    atomic_path,
    read_history,
    read_json,
    remove_temporary_files,
    sha256,
    write_json,
)
from melanoma_lib.core.locks import lock
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode
from melanoma_lib.data.split import describe_split, make_split
from melanoma_lib.data.torch_dataset import TrainingData
from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.operating_points import choose_operating_points
from melanoma_lib.evaluation.predictions import (
    Predictions,
    load_predictions,
    predict_logits,
    save_predictions,
)
from melanoma_lib.models import out_of_distribution
from melanoma_lib.models.build import build_model, get_architecture, normalisation
from melanoma_lib.models.bundle import save_bundle
from melanoma_lib.training import distributed
from melanoma_lib.training.loop import fit
from melanoma_lib.training.precision import ComputeSettings, computes_bfloat16

OUTPUTS = (
    "history.csv", "model.safetensors", "bundle.json", "predictions.parquet",
    out_of_distribution.FILE,
)  # fmt: skip
SCHEMA = 4


def prepare(config: Config) -> TrainingData:
    """Opens and checks the dataset, splits it (written to split.csv) and decodes its pixels."""
    files = open_dataset(config.data_dir, config.metadata, config.img_dir)
    split = make_split(files.metadata, config.split, config.seed)
    pixels = decode(files, config.image_size)
    if distributed.rank() == 0:
        with atomic_path(Path(config.output_dir) / "split.csv") as temporary:
            split.to_csv(temporary, index=False)
    labels = split["dx"].map(CLASS_NAMES.index).to_numpy()
    return TrainingData(files, split, pixels, labels)


def train_architecture(config: Config, key: str) -> Path:
    """Trains one architecture and writes everything that belongs in its run folder; returns that.

    A finished training is only read, an interrupted one resumed. One with other parameters is
    moved to `replaced/`, and moved back when its parameters are asked for again. Under torchrun,
    process 0 writes the files and the others only train. Raises `MelanomaError` when another
    process is training this architecture in this run.
    """
    if distributed.rank():
        return _train_worker(config, key)
    with lock(config.training_lock(key)):
        return _train(config, key)


def _train(config: Config, key: str) -> Path:
    data = prepare(config)
    folder = Path(config.output_dir) / key
    remove_temporary_files(folder)
    training_key = config.training_key(key, data.files.fingerprint)
    record = prepare_run_folder(folder, training_key, config.epochs)
    whole = all((folder / name).exists() for name in OUTPUTS)
    if distributed.broadcast(whole and record.get("finished") and record["schema"] == SCHEMA):
        _check_weights(folder)
        _renew_operating_points(folder, config)
        return folder
    entry = get_architecture(key)
    record |= {
        "schema": SCHEMA,
        "training_key": training_key,
        "recipe": config.recipe(key, data.files.fingerprint),
        "architecture": key,
        "name": entry.display_name,
        "timm_name": entry.timm_name,
        "config": dataclasses.asdict(config),
        "dataset": describe_split(data.files, data.split),
        "versions": versions(),
        "epochs": config.epochs,
    }
    model = _model(config, key)
    with gpu_lock(config):
        settings = _compute_settings(config, record)
        write_json(folder / "run.json", record)
        history = _fit(config, key, data, model, distributed.broadcast(settings))
    predictions, reference = predict(model, data, config.batch_size)
    save_predictions(folder / "predictions.parquet", predictions)
    validation = predictions.split("val")
    temperature = fit_temperature(validation.logits, validation.labels)
    scores = validation.melanoma_score(temperature)
    mean, std = normalisation(model)
    save_bundle(
        folder,
        reference,
        architecture=key,
        class_names=CLASS_NAMES,
        image_size=config.image_size,
        mean=mean,
        std=std,
        temperature=temperature,
        operating_points=choose_operating_points(
            validation.is_melanoma, scores, config.operating_points
        ),
        generated=data.files.generated,
    )
    record |= {
        "finished": True,
        "best_epoch": max(row["epoch"] for row in history if row["best"]),
        "train_seconds": sum(row["seconds"] for row in history),
        "batch_parts": history[-1]["parts"],
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "device": device_name(model),
        "processes": distributed.size(),
    }
    write_json(folder / "run.json", record)
    return folder


def _check_weights(folder: Path) -> None:
    """Raises `MelanomaError` unless the weights have the checksum of the bundle."""
    path = folder / "model.safetensors"
    if sha256(path) != read_json(folder / "bundle.json")["weights_sha256"]:
        raise MelanomaError(f"{path} is damaged; move {folder} away to train again")


def _renew_operating_points(folder: Path, config: Config) -> None:
    """Chooses the operating points of a finished training again if others are asked for."""
    bundle = read_json(folder / "bundle.json")
    chosen = [(point["criterion"], point["target"]) for point in bundle["operating_points"]]
    if chosen != list(config.operating_points):
        validation = load_predictions(folder / "predictions.parquet").split("val")
        bundle["operating_points"] = choose_operating_points(
            validation.is_melanoma,
            validation.melanoma_score(bundle["temperature"]),
            config.operating_points,
        )
        write_json(folder / "bundle.json", bundle)


@contextlib.contextmanager
def gpu_lock(config: Config) -> Iterator[None]:
    """Holds the GPU for one training of this run at a time; does nothing on the CPU.

    Several at once would each be slower. What precedes and follows a training needs little of a
    GPU, and overlaps with the next training.
    """
    device = pick_device(config.device)
    if device.type == "cpu" or distributed.size() > 1:
        yield
        return
    which = torch.cuda.get_device_properties(device).uuid if device.type == "cuda" else device
    path = Path(config.output_dir) / f".{which}.lock"
    with lock(path, waiting=f"waiting: another training computes on {device}"):
        yield
        torch.cuda.empty_cache()  # the next one needs what this process keeps for itself


def _model(config: Config, key: str) -> nn.Module:
    torch.manual_seed(config.seed)  # the new output layer, or all weights
    return build_model(
        key, len(CLASS_NAMES), config.image_size, config.pretrained, config.weights.get(key, "")
    )


def _compute_settings(config: Config, record: dict) -> ComputeSettings:
    """The settings of a training: those in run.json if it is resumed, so that it stays exact."""
    if "arithmetic" not in record:
        precision, reason = _precision(config, record["dataset"]["fingerprint"])
        record["arithmetic"] = dataclasses.asdict(ComputeSettings(precision))
    else:
        reason = "as recorded"
    settings = ComputeSettings(**record["arithmetic"])
    print(f"computes in {settings} ({reason})", flush=True)
    return settings


def _precision(config: Config, fingerprint: str) -> tuple[str, str]:
    """The precision of a new training, and why; `auto` decides once for all trainings of a run."""
    if config.precision != PRECISIONS[0]:
        return config.precision, "as asked"
    for path in sorted(Path(config.output_dir).glob("*/run.json")):
        other = read_json(path)
        same = all(
            other.get("config", {}).get(name) == getattr(config, name)
            for name in (*TRAINING_FIELDS, "precision")
        )
        if same and "arithmetic" in other and other["dataset"]["fingerprint"] == fingerprint:
            return other["arithmetic"]["precision"], f"as {path.parent.name} of this run"
    if computes_bfloat16(pick_device(config.device)):
        return "bfloat16", "auto: the device computes in it natively"
    return "float32", "auto: the device does not compute in bfloat16 natively"


def _fit(
    config: Config, key: str, data: TrainingData, model: nn.Module, settings: ComputeSettings
) -> list[dict]:
    folder = Path(config.output_dir) / key
    return fit(model, data.dataset("train"), data.dataset("val"), config, folder, settings)


def _train_worker(config: Config, key: str) -> Path:
    """The part of every process but the first: its shard of each batch, and no files."""
    if not distributed.broadcast():  # whether the training is finished already
        data, model = prepare(config), _model(config, key)
        _fit(config, key, data, model, distributed.broadcast())  # the settings
    return Path(config.output_dir) / key


def prepare_run_folder(folder: Path, training_key: str, epochs: int) -> dict:
    """Makes `folder` hold the training with this key, or nothing; returns its run.json, or {}.

    Another training in the folder is moved to `replaced/`, an earlier one with this key back from
    there. The same training with more epochs is resumed from its checkpoint.
    """
    aside = folder.parent / "replaced"
    record = read_json(folder / "run.json", {})
    done = len(read_history(folder))
    same = record.get("training_key") == training_key
    trained = any(folder.glob("checkpoint-*"))
    if trained and not (same and done <= epochs):
        aside.mkdir(exist_ok=True)
        target = aside / f"{folder.name}-{record.get('training_key', 'unknown')}-{done}"
        shutil.rmtree(target, ignore_errors=True)  # the same training, kept before
        folder.replace(target)
        print(f"other parameters than before: the earlier {folder.name} is kept in {aside}")
        trained = False
    if not trained:
        kept = {int(path.name.rpartition("-")[2]): path
                for path in aside.glob(f"{folder.name}-{training_key}-*")}  # fmt: skip
        usable = [count for count in kept if count <= epochs]
        if usable:
            shutil.rmtree(folder, ignore_errors=True)  # without a checkpoint there is nothing in it
            kept[max(usable)].replace(folder)
            record = read_json(folder / "run.json")
            same = True
    folder.mkdir(parents=True, exist_ok=True)
    if same and record["epochs"] != epochs:
        record = {"arithmetic": record["arithmetic"]} if "arithmetic" in record else {}
    return record if same else {}


def predict(
    model: nn.Module, data: TrainingData, batch_size: int
) -> tuple[Predictions, out_of_distribution.ReferenceSet]:
    """Predictions for validation and test, and the reference set of the validation images.

    On the split by image, the two are the same images.
    """
    mean_std = normalisation(model)
    val, test = datasets = [data.dataset(name) for name in ("val", "test")]
    with out_of_distribution.capture_features(model) as features:
        logits = [predict_logits(model, val, batch_size, mean_std)]
    logits.append(predict_logits(model, test, batch_size, mean_std))
    rows = np.concatenate([dataset.rows for dataset in datasets])
    lesion_ids = data.split["lesion_id"].to_numpy(str)
    predictions = Predictions(
        image_ids=data.split["image_id"].to_numpy(str)[rows],
        lesion_ids=lesion_ids[rows],
        splits=np.repeat(["val", "test"], [len(val), len(test)]),
        labels=data.labels[rows],
        logits=np.concatenate(logits),
    )
    features = torch.cat(features)[-len(val) :]  # after those of batches that were too large
    features = features.cpu().numpy()
    return predictions, out_of_distribution.fit_reference_set(features, lesion_ids[val.rows])
