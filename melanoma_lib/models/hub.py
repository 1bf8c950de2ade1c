"""Trained models on the Hugging Face Hub: uploaded as one folder, fetched as a bundle.

The token is the one that the hub's own tools keep (`hf auth login`, or HF_TOKEN); nothing here
reads, shows or writes it.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError

PREFIX = "hf://"
# A repository is a run's folder with one model in it; of that model what its use needs.
BUNDLE_FILES = ("bundle.json", "model.safetensors", "known.safetensors", "run.json",
                "predictions.parquet")  # fmt: skip
NEEDED = ["split.csv", *(f"*/{name}" for name in BUNDLE_FILES)]


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turns what the hub's client raises into a `MelanomaError` of one line."""
    try:
        yield
    except MelanomaError:
        raise
    except Exception as error:  # of several unrelated types, which change with the client's version
        reason = str(error).strip().partition("\n")[0]
        raise MelanomaError(f"{what}: {reason or type(error).__name__}") from None


def fetch_run(address: str) -> Path:
    """A run's folder with one trained model from `hf://owner/name`, or `hf://owner/name@revision`.

    What is in the hub's cache already is not fetched again. Raises `MelanomaError` when the
    repository cannot be reached, or holds no bundle; loading the bundle checks its checksums.
    """
    import huggingface_hub

    name, _, revision = address.removeprefix(PREFIX).partition("@")
    with _hub_errors(f"{address} cannot be fetched"):
        folder = Path(huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=NEEDED
        ))  # fmt: skip
    if not list(folder.glob("*/bundle.json")):
        raise MelanomaError(f"{address} holds no trained model of this project")
    return folder


def upload(folder: Path, repository: str, public: bool, confirm: Callable[[str], bool]) -> str:
    """Uploads all files of a folder into a model repository, and returns its address.

    A new repository is private unless `public`. Before anything becomes public, `confirm` is asked;
    without its consent nothing is sent. Files that the hub has already are not sent again, so the
    same call goes on after an interruption. Raises `MelanomaError` where the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    with _hub_errors(f"{repository} cannot be uploaded to"):
        try:
            visible = not api.model_info(repository).private
        except RepositoryNotFoundError:
            visible = public
        if (visible or public) and not confirm(repository):
            raise MelanomaError("nothing was sent")
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if public and not visible:
            api.update_repo_settings(repository, private=False)
        with warnings.catch_warnings(action="ignore"):  # that predictions are data
            api.upload_folder(repo_id=repository, folder_path=folder)
    return str(address)
