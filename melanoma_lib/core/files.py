"""Files: atomic writes, checksums, and where things lie."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from melanoma_lib.core.errors import MelanomaError, ignore_unsupported

PROJECT = Path(__file__).resolve().parents[2]
ENCODING = {"encoding": "utf-8", "errors": "backslashreplace"}
_UMASK = os.umask(0)  # read once: reading it means changing it, for all threads
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path | str, checksum: bool = False) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error.

    The temporary file lies in the same folder and has the same suffix, which some writers choose a
    format by. A link stays, and the file that it leads to is replaced. A device or a pipe is not
    replaced but yielded itself, and what standard output goes to is appended to. With `checksum`,
    the final name also holds the SHA-256 of the content (see `checksum_holds`), so that both appear
    in one step. Raises `MelanomaError` when the file cannot be written, for example because the
    disk is full; what was there before is then unchanged.
    """
    path, temporary = Path(path), None
    kept = "; what was there before is still there"
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.stem[:40]}-"  # the name of a file has 255 bytes at most
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with ignore_unsupported("files are written that only their owner can read"):  # by mkstemp
            temporary.chmod(0o666 & ~_UMASK)
        with temporary.open("rb+") as file, ignore_unsupported("a power cut may lose new files"):
            os.fsync(file.fileno())
        if checksum:
            target = target.with_stem(f"{path.stem}-{sha256(temporary)[:16]}")
        if _is_stdout(target):
            with temporary.open("rb") as source, open(1, "wb", closefd=False) as stdout:
                shutil.copyfileobj(source, stdout)
        else:
            with ignore_unsupported("a process that is killed while it writes leaves half a file"):
                temporary.replace(target)
            if temporary.exists():  # a file system, as of a mounted bucket, without renames
                kept = ""
                shutil.copyfile(temporary, target)
    except (OSError, SafetensorError) as error:  # other errors are not of writing
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MelanomaError(
            f"{path} cannot be written ({reason}); {_free(path)} are free there{kept}"
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _is_stdout(path: Path) -> bool:
    """Whether standard output goes to a file; to replace it would lose all that is printed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # there is no such file, or no standard output
        return False


def remove_temporary_files(folder: Path) -> None:
    """Removes the temporary files of killed processes; safe only where no other process writes."""
    for path in folder.glob(".*-*"):  # not the folders that editors leave
        path.unlink()


def _free(path: Path) -> str:
    return f"{shutil.disk_usage(existing_folder(path.parent)).free / 1e6:,.0f} MB"


def existing_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def cache_folder() -> Path:
    """Where decoded pixels and features are kept: $MELANOMA_CACHE, or data/cache of the project."""
    return Path(os.environ.get("MELANOMA_CACHE") or PROJECT / "data" / "cache")


def write_text(path: Path | str, text: str) -> Path:
    """Writes `text` (UTF-8) atomically; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, **ENCODING)
    return Path(path)


def write_json(path: Path | str, value: object) -> Path:
    """Writes `value` as indented JSON, atomically; NaN is refused because JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str, otherwise: dict | None = None) -> dict:
    """Reads a JSON object; `otherwise` is returned where there is no file.

    Raises `MelanomaError` when the file is missing and there is no `otherwise`, or when it holds
    anything but an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
        return value
    except (FileNotFoundError, NotADirectoryError):
        if otherwise is not None:
            return otherwise
        raise MelanomaError(f"{path} does not exist; run the step that writes it first") from None
    except (ValueError, OSError) as error:
        raise MelanomaError(f"{path} cannot be read ({error}); delete it and run again") from None


def write_csv(
    path: Path | str,
    rows: Sequence[Mapping[str, object]],
    heads: Sequence[str] = (),
    last_line: str = "",
) -> Path:
    """Writes dictionaries with equal keys as CSV, atomically; `heads` are the columns if empty.

    `last_line` is written below the rows as it is.
    """
    with csv_writer(path, list(rows[0] if rows else heads), last_line) as write:
        for row in rows:
            write(row)
    return Path(path)


@contextmanager
def csv_writer(
    path: Path | str, columns: Sequence[str], last_line: str = ""
) -> Iterator[Callable]:
    """Yields a function that writes a dictionary as a row of a CSV file, which appears at the end.

    A pipe receives each row at once. Raises `MelanomaError` as `atomic_path` does.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", **ENCODING) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()

        def write(row: Mapping[str, object]) -> None:
            writer.writerow(row)
            file.flush()

        yield write
        file.write(last_line)


def read_history(folder: Path) -> list[dict[str, str]]:
    """The finished epochs of a training from its history.csv, oldest first; [] without one."""
    path = folder / "history.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal; raises `MelanomaError` when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MelanomaError(f"{path} cannot be read ({error.strerror})") from None


def checksum_holds(path: Path) -> bool:
    """Whether a file has the checksum that `atomic_path` put into its name."""
    return sha256(path)[:16] == path.stem.rpartition("-")[2]


def digest(value: object) -> str:
    """A short fingerprint of anything JSON can hold, independent of key order."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
