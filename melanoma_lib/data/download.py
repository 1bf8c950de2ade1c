"""The official files: fetched, or taken from a folder; checked, then unpacked.

requests fetches and tenacity tries again; a file goes on where it broke off, which pooch cannot do.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests
import tenacity

from melanoma_lib import __version__
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import progress
from melanoma_lib.data.picture_files import list_files, sort_pictures

SERVER = "https://dataverse.harvard.edu/api/access/datafile/"
DOI = "https://doi.org/10.7910/DVN/DBW86T"
# The server refuses Python's default agent. A byte range counts stored bytes, not compressed ones.
HEADERS = {
    "User-Agent": f"Mozilla/5.0 (compatible; melanoma-lib/{__version__})",
    "Accept-Encoding": "identity",
}
TIMEOUT = (15, 60)  # seconds to connect, and without a byte
ATTEMPTS = 6  # that bring nothing, with 1, 2, 4, 8 and 16 seconds between them
CHUNK = 1_000_000  # bytes
FINAL = (401, 403, 404, 410)  # answers that waiting does not change


@dataclass(frozen=True)
class OfficialFile:
    """A file of doi:10.7910/DVN/DBW86T, v4.0: its name here, its number there, what it holds.

    `size` in bytes (None: not published), `pictures` in a zip file.
    """

    name: str
    dataset: str
    part: str
    number: int
    md5: str
    size: int | None = None
    pictures: int = 0

    @property
    def stem(self) -> str:
        return self.name.partition(".")[0]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called where it was fetched by hand."""
        return (self.name,) if self.pictures else (self.name, self.stem, f"{self.stem}.tab")

    @property
    def url(self) -> str:
        """Tables were changed when they were uploaded; their original has to be asked for."""
        return f"{SERVER}{self.number}{'' if self.pictures else '?format=original'}"


PARTS = ("table", "images", "masks")
FILES = (
    OfficialFile("HAM10000_metadata.csv", "ham10000", "table", 4338392,
                 "8f85fb1aa29d80a2797247e434deb79d", 690_218),
    OfficialFile("HAM10000_images_part_1.zip", "ham10000", "images", 3172585,
                 "4639bfa73ab251610530a97c898e6e46", 1_366_522_108, 5_000),
    OfficialFile("HAM10000_images_part_2.zip", "ham10000", "images", 3172584,
                 "da43d6cc50f6613013be07e8986b384b", 1_403_566_547, 5_015),
    OfficialFile("HAM10000_segmentations_lesion_tschandl.zip", "ham10000", "masks", 3838943,
                 "6e8d252e09cfdb0189199f15985a5b84", 10_808_743, 10_015),
    OfficialFile("ISIC2018_Task3_Test_GroundTruth.csv", "isic2018_test", "table", 6924466,
                 "2b5663aacc9644740f27e355cf7f369a"),
    OfficialFile("ISIC2018_Task3_Test_Images.zip", "isic2018_test", "images", 3855824,
                 "0488b6f65849e310857d9207daa55a21", pictures=1_512),  # one of them synthetic
)  # fmt: skip


def download(
    folder: Path, dataset: str = "ham10000", parts: Sequence[str] = PARTS, by_hand: str = ""
) -> None:
    """Makes `folder` hold the named parts of a dataset, unpacked; what is there stays.

    Files that lie in `folder` or in `by_hand` under their published names are used instead of
    fetched ones. Raises `MelanomaError` for a file that is not the published one, a full disk,
    or a server that cannot be reached; the same call goes on from there.
    """
    if by_hand and not Path(by_hand).is_dir():
        raise MelanomaError(f"the folder {by_hand} that --from names does not exist")
    asked = [file for file in FILES if file.dataset == dataset and file.part in parts]
    with lock(folder / ".download.lock"):
        complete = [file for file in asked if _complete(folder, file)]
        for file in complete:
            print(f"{file.stem}: complete", flush=True)
        missing = [file for file in asked if file not in complete]
        found = {file: _published(file, folder) or _published(file, by_hand) for file in missing}
        _check_space(folder, found)
        for file, source in found.items():
            source = source or _fetch(folder, file, [f.name for f in missing if not found[f]])
            if file.pictures:
                print(f"{file.stem}: unpacking {file.pictures:,} pictures", flush=True)
                unpack(source, folder / file.stem)
            elif source.parent != folder:
                with atomic_path(folder / file.name) as temporary:
                    shutil.copyfile(source, temporary)
            if file.pictures and not found[file]:
                source.unlink()  # unpacked, and not the user's own


def _complete(folder: Path, file: OfficialFile) -> bool:
    """Whether what a file holds is there: in its own folder, or with its part's all together."""
    if not file.pictures:
        return _published(file, folder) is not None
    found = sort_pictures(folder, list_files(folder)[0])[file.part == "masks"]
    whole = sum(f.pictures for f in FILES if (f.dataset, f.part) == (file.dataset, file.part))
    own = [paths for paths in found.values()
           if any(path.is_relative_to(folder / file.stem) for path in paths)]  # fmt: skip
    return len(own) >= file.pictures or len(found) >= whole


def _published(file: OfficialFile, folder: Path | str) -> Path | None:
    """The file in a folder, if there is one; raises `MelanomaError` for another of its name."""
    there = [Path(folder, name) for name in file.names if folder and Path(folder, name).is_file()]
    path = there[0] if there else None
    if path and (md5 := _md5(path)) != file.md5:
        raise MelanomaError(
            f"{path} is not the published file (md5 {md5}, published {file.md5}): broken off, or "
            f"not {file.url}; delete it"
        )
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _check_space(folder: Path, found: dict[OfficialFile, Path | None]) -> None:
    """Pictures are hardly smaller in their zip, which goes when they are unpacked."""
    sizes = [path.stat().st_size if path else file.size or 0 for file, path in found.items()]
    fetched = [file.size or 0 for file, path in found.items() if not path and file.pictures]
    there = sum(path.stat().st_size for path in folder.glob(".*.part"))
    need = sum(sizes) + max(fetched, default=0) - there
    if need > (free := shutil.disk_usage(folder).free):
        raise MelanomaError(
            f"{folder} needs {need / 1e9:.2f} GB more and the disk has {free / 1e9:.2f} GB free; "
            "make room or name another folder"
        )


def _fetch(folder: Path, file: OfficialFile, missing: Sequence[str]) -> Path:
    """Fetches a file into `folder`; an error names all that may be fetched by hand instead."""
    part = folder / f".{file.name}.part"
    try:
        for _ in range(2):  # once more from the start if what came is damaged
            _receive(file, part)
            if _md5(part) == file.md5:
                return Path(shutil.move(part, folder / file.name))
            part.unlink()
        raise requests.RequestException("sends another content than the published one")
    except requests.RequestException as error:
        raise MelanomaError(
            f"{file.name}: {_reason(error)}. The same command goes on from here; or fetch by hand "
            f"from {DOI} (tables in their original format) what is missing of "
            f"{summarize_items(missing)}, and name its folder with --from"
        ) from None


def _reason(error: requests.RequestException) -> str:
    what = f"cannot be reached, stalls or breaks off ({type(error).__name__})"
    if error.response is not None:
        what = f"answers {error.response.status_code} {error.response.reason}"
    elif type(error) is requests.RequestException:  # raised here
        what = str(error)
    return f"{SERVER.split('/')[2]} {what}"


@tenacity.retry(
    retry=tenacity.retry_if_exception(
        lambda error: isinstance(error, requests.RequestException)
        and getattr(error.response, "status_code", None) not in FINAL
    ),
    stop=tenacity.stop_after_attempt(ATTEMPTS),
    wait=tenacity.wait_exponential(max=16),
    before_sleep=lambda call: print(
        f"{call.args[0].name}: {_reason(call.outcome.exception())}; trying again", flush=True
    ),
    reraise=True,
)
def _receive(file: OfficialFile, part: Path) -> None:
    """Appends to `part` what it lacks of a file; after a break that brought bytes, it goes on."""
    with part.open("ab") as stream:
        while (start := stream.tell()) != file.size:
            try:
                return _append(file, stream, start)
            except requests.RequestException:
                if stream.tell() <= start:
                    raise


def _append(file: OfficialFile, stream: IO[bytes], start: int) -> None:
    """One request: appends what the server sends of a file from byte `start` on."""
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # there is nothing after what we have
            return
        answer.raise_for_status()
        if answer.status_code == 200:  # the whole file, whatever was asked for
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else file.size
        if file.size and total != file.size:  # a page of apologies, another part of the file
            raise requests.RequestException(
                f"announces {total:,} bytes instead of the published {file.size:,}"
            )
        stream.seek(start)
        stream.truncate()
        print(f"{file.name}: {(total or 0) / 1e6:,.1f} MB, from {start / 1e6:,.1f} on", flush=True)
        chunks, count = answer.iter_content(CHUNK), total and total // CHUNK
        stream.writelines(progress(chunks, file.stem, count, initial=start // CHUNK, unit="MB"))


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip file into `folder`, all of it or nothing."""
    scratch = folder.with_name(f".{folder.name}-unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed process
    try:
        shutil.unpack_archive(archive, scratch)
        shutil.copytree(scratch, folder, copy_function=shutil.move, dirs_exist_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
