"""One architecture from pixels to bundle: data, training, predictions, temperature, thresholds."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from melanoma_lib.config import PRECISIONS, RECIPES, TRAINING_FIELDS, TRAININGS, Config, Recipe
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
from melanoma_lib.data.torch_dataset import HAM10000Dataset, TrainingData, to_gpu_memory
from melanoma_lib.evaluation.calibration import fit_temperature, temperature_note
from melanoma_lib.evaluation.ensemble import log_mean_probabilities
from melanoma_lib.evaluation.operating_points import choose_operating_points
from melanoma_lib.evaluation.predictions import (
    Predictions,
    load_predictions,
    predict_logits,
    predict_with_features,
    save_predictions,
)
from melanoma_lib.evaluation.trained_run import WITH_FLIPS
from melanoma_lib.models import out_of_distribution
from melanoma_lib.models.build import build_model, get_architecture, normalisation
from melanoma_lib.models.bundle import save_bundle
from melanoma_lib.training import distributed
from melanoma_lib.training.checkpoint import last_epoch, save_results
from melanoma_lib.training.dry_run import dry_run
from melanoma_lib.training.loop import fit
from melanoma_lib.training.precision import ComputeSettings, computes_bfloat16
from melanoma_lib.training.probe import fit_output_layer

OUTPUTS = (
    "history.csv", "model.safetensors", "bundle.json", "predictions.parquet",
    out_of_distribution.FILE,
)  # fmt: skip
SCHEMA = 5  # of run.json and predictions.parquet; raise it when that changes


def prepare(config: Config) -> TrainingData:
    """Opens and checks the dataset, splits it (written to split.csv) and decodes its pixels."""
    files = open_dataset(config.data_dir, config.metadata, config.img_dir)
    split = make_split(files.metadata, config.split, config.seed, config.leaked_fraction)
    first = distributed.rank() == 0
    if not first:
        distributed.wait()  # process 0 decodes
    pixels = decode(files, config.image_size)
    if first:
        with atomic_path(Path(config.output_dir) / "split.csv") as temporary:
            split.to_csv(temporary, index=False)
        distributed.wait()
    labels = split["dx"].map(CLASS_NAMES.index).to_numpy()
    return TrainingData(files, split, pixels, labels)


def train_architecture(config: Config, key: str) -> Path:
    """Trains one architecture and writes everything that belongs in its run folder; returns that.

    A finished training is only read, an interrupted one resumed. One with other parameters is
    moved to `replaced/`, and moved back when its parameters are asked for again. Under torchrun,
    process 0 writes the files and the others only train. Raises `MelanomaError` when another
    process is training this architecture in this run.
    """
    folder, first = Path(config.output_dir) / key, distributed.rank() == 0
    device = pick_device(config.device)
    with lock(config.training_lock(key)) if first else contextlib.nullcontext():
        data = prepare(config)
        record = _open_record(folder, config, key, data) if first else {}
        if not distributed.broadcast(record.get("finished")):
            _train(folder, config, key, data, record, device)
        if first:
            _choose_operating_points(folder, config)
    return folder


def _open_record(folder: Path, config: Config, key: str, data: TrainingData) -> dict:
    """The content of run.json: as it is if the training is finished, or else that of its start."""
    remove_temporary_files(folder)
    entry, dataset = get_architecture(key), describe_split(data.files, data.split)
    training_key = config.training_key(key, data.files.fingerprint)
    recipe = config.recipe_key(key, data.files.fingerprint)
    record = prepare_run_folder(folder, training_key, config.epochs)
    whole = all((folder / name).exists() for name in OUTPUTS)
    if whole and record.get("finished") and record["schema"] == SCHEMA:
        return record
    return record | {
        "finished": False,
        "schema": SCHEMA,
        "training_key": training_key,
        "recipe": recipe,
        "architecture": key,
        "name": entry.display_name,
        "timm_name": entry.timm_name,
        "config": dataclasses.asdict(config),
        "dataset": dataset,
        "versions": versions(),
        "epochs": config.epochs,
    }


def _train(
    folder: Path, config: Config, key: str, data: TrainingData, record: dict, device: torch.device
) -> None:
    """Trains; process 0 adds what is found to `record` and writes the files."""
    first, recipe = distributed.rank() == 0, RECIPES[config.recipe]
    settings = _compute_settings(config, record, device) if first else None
    if first:
        write_json(folder / "run.json", record)
    settings = distributed.broadcast(settings)
    torch.manual_seed(config.training_seed)  # the new output layer, or all weights
    model = build_model(
        key, len(CLASS_NAMES), config.image_size, config.pretrained, config.weights.get(key, "")
    )
    with gpu_lock(config.run_dir, device):
        model.to(device)
        history = []
        if recipe.probe and not any(folder.glob("checkpoint-*")):
            with settings.use_threads():
                history = fit_output_layer(model, data, config.batch_size)
            if first:
                save_results(folder, history, model.state_dict())
            distributed.wait()
        train, val = (to_gpu_memory(data.dataset(name), device) for name in ("train", "val"))
        history = fit(model, train, val, config, folder, settings, history)
    if not first:
        return
    predictions, distances, reference = predict(model, data, config.batch_size)
    save_predictions(folder / "predictions.parquet", predictions, distance=distances)
    flipped = predict_with_flips(model, data, predictions, config.batch_size)
    save_predictions(folder / WITH_FLIPS, flipped)
    validation = predictions.split("val")
    temperature = fit_temperature(validation.logits, validation.labels)
    if note := temperature_note(temperature):
        print(note, flush=True)
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
        operating_points=[],
        generated=data.files.generated,
        **_decision(recipe, data),
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


def _decision(recipe: Recipe, data: TrainingData) -> dict[str, list[float]]:
    """What the bundle says of the decision on a diagnosis; see `TrainedRun.decision_scores`."""
    if recipe.decision == Recipe.decision:
        return {}
    counts = np.maximum(data.dataset("train").class_counts(), 1)
    return {"decision_priors": (counts / counts.sum()).tolist()}


def _choose_operating_points(folder: Path, config: Config) -> None:
    """Chooses the operating points of a finished training if others are asked for.

    Raises `MelanomaError` unless the weights have the checksum of the bundle.
    """
    bundle, weights = read_json(folder / "bundle.json"), folder / "model.safetensors"
    if sha256(weights) != bundle["weights_sha256"]:
        raise MelanomaError(f"{weights} is damaged; move {folder} away to train again")
    chosen = [(point["criterion"], point["target"]) for point in bundle["operating_points"]]
    if chosen != list(config.operating_points):
        validation = load_predictions(folder / "predictions.parquet").split("val")
        scores = validation.melanoma_probability(bundle["temperature"])
        bundle["operating_points"] = choose_operating_points(
            validation.is_melanoma, scores, config.operating_points
        )
        write_json(folder / "bundle.json", bundle)


@contextlib.contextmanager
def gpu_lock(run: Path, device: torch.device) -> Iterator[None]:
    """Holds the GPU for one training of a run at a time; does nothing on the CPU.

    Several at once would each be slower. What precedes and follows a training needs little of a
    GPU, and overlaps with the next training.
    """
    if device.type == "cpu" or distributed.size() > 1:
        yield
        return
    which = torch.cuda.get_device_properties(device).uuid if device.type == "cuda" else device
    path = run / f".{which}.lock"
    with lock(path, waiting=f"waiting: another training computes on {device}"):
        yield
        torch.cuda.empty_cache()  # the next one needs what this process keeps for itself


def _compute_settings(config: Config, record: dict, device: torch.device) -> ComputeSettings:
    """The settings of a training, added to `record`: of a resumed one those that are there."""
    if "arithmetic" in record:
        settings, reason = ComputeSettings(**record["arithmetic"]), "as recorded"
    else:
        precision, reason = _precision(config, record["dataset"]["fingerprint"], device)
        settings = ComputeSettings(precision)
        settings = dry_run(record["architecture"], config.image_size, settings, device)
        record["arithmetic"] = dataclasses.asdict(settings)
    print(f"computes in {settings} ({reason})", flush=True)
    return settings


def _precision(config: Config, fingerprint: str, device: torch.device) -> tuple[str, str]:
    """The precision of a new training, and why; `auto` decides once for all trainings of a run."""
    if config.precision != PRECISIONS[0]:
        return config.precision, "as asked"
    run = config.run_dir
    for path in sorted([*run.glob("*/run.json"), *run.glob(f"{TRAININGS}/*/*/run.json")]):
        other = read_json(path)
        same = all(
            other.get("config", {}).get(name) == getattr(config, name)
            for name in (*TRAINING_FIELDS, "precision")
        )
        if same and "arithmetic" in other and other["dataset"]["fingerprint"] == fingerprint:
            return other["arithmetic"]["precision"], f"as {path.parent.name} of this run"
    if computes_bfloat16(device):
        return "bfloat16", "auto: the device computes in it natively"
    return "float32", "auto: the device does not compute in bfloat16 natively"


def prepare_run_folder(folder: Path, training_key: str, epochs: int) -> dict:
    """Makes `folder` hold the training with this key, or nothing; returns its run.json, or {}.

    Another training in the folder is moved to `replaced/`, an earlier one with this key back from
    there. The same training with more epochs is resumed from its checkpoint.
    """
    aside = folder.parent / "replaced"
    record, done = read_json(folder / "run.json", {}), last_epoch(read_history(folder))
    trained = any(folder.glob("checkpoint-*")) or record.get("finished")
    if trained and (record.get("training_key") != training_key or done > epochs):
        aside.mkdir(exist_ok=True)
        target = aside / f"{folder.name}-{record.get('training_key', 'unknown')}-{done}"
        shutil.rmtree(target, ignore_errors=True)  # the same training, kept before
        shutil.move(folder, target)
        print(f"other parameters than before: the earlier {folder.name} is kept in {aside}")
        trained = False
    kept = {int(path.name.rpartition("-")[2]): path
            for path in aside.glob(f"{folder.name}-{training_key}-*")}  # fmt: skip
    usable = [count for count in kept if count <= epochs]
    if usable and not trained:
        shutil.rmtree(folder, ignore_errors=True)  # without a checkpoint there is nothing in it
        shutil.move(kept[max(usable)], folder)
        record = read_json(folder / "run.json")
    folder.mkdir(parents=True, exist_ok=True)
    if record.get("training_key") != training_key:
        return {}
    if record["epochs"] != epochs:
        return {name: record[name] for name in ("arithmetic",) if name in record}
    return record


def predict(
    model: nn.Module, data: TrainingData, batch_size: int
) -> tuple[Predictions, np.ndarray, out_of_distribution.ReferenceSet]:
    """Predictions for validation and test, their distances to the reference set (n,), and that set.

    It is made of the validation images. On the split by image, test are the same images. Images of
    an image's own lesion do not count for its distance.
    """
    split_of = {name: data.dataset(name).rows for name in ("val", "test")}
    rows = np.concatenate(list(split_of.values()))
    held_out = HAM10000Dataset(data.pixels, data.labels, np.unique(rows))
    logits, features = predict_with_features(model, held_out, batch_size, normalisation(model))
    lesion_ids = data.split["lesion_id"].to_numpy(str)
    predictions = Predictions(
        image_ids=data.split["image_id"].to_numpy(str)[rows],
        lesion_ids=lesion_ids[rows],
        splits=np.repeat(list(split_of), [len(found) for found in split_of.values()]),
        labels=data.labels[rows],
        logits=logits[np.searchsorted(held_out.rows, rows)],
    )
    val = split_of["val"]
    reference = out_of_distribution.fit_reference_set(
        features[np.searchsorted(held_out.rows, val)], lesion_ids[val]
    )
    distances = reference.distance_to_other_lesions(
        features[np.searchsorted(held_out.rows, rows)], lesion_ids[rows], lesion_ids[val]
    )
    return predictions, distances, reference


def predict_with_flips(
    model: nn.Module, data: TrainingData, predictions: Predictions, batch_size: int
) -> Predictions:
    """The same images, each predicted together with its three mirror images: mean probabilities.

    Their logarithms are the logits. A lesion has no up and no left, so that all four are as good.
    """
    rows = np.concatenate([data.dataset(name).rows for name in ("val", "test")])
    logits = [predictions.logits]
    for flipped in (data.pixels[:, ::-1], data.pixels[:, :, ::-1], data.pixels[:, ::-1, ::-1]):
        held_out = HAM10000Dataset(flipped, data.labels, rows)
        logits.append(predict_logits(model, held_out, batch_size, normalisation(model)))
    mean = log_mean_probabilities(logits, [1.0] * len(logits))
    return dataclasses.replace(predictions, logits=mean)
