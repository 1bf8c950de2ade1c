"""The official files: fetched and resumed, or taken from a folder; checked, then unpacked.

Over plain requests: a broken download goes on where it broke, which pooch cannot do.
"""

import hashlib
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import requests

from melanoma_lib import __version__
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import byte_bar, progress
from melanoma_lib.data.dataset_files import SUFFIXES, index_files

SERVER = "https://dataverse.harvard.edu/api/access/datafile/"
DOI = "https://doi.org/10.7910/DVN/DBW86T"
# The server refuses Python's default agent. A byte range counts stored bytes, not compressed ones.
HEADERS = {
    "User-Agent": f"Mozilla/5.0 (compatible; melanoma-lib/{__version__})",
    "Accept-Encoding": "identity",
}
TIMEOUT = (15, 60)  # seconds to connect, and without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before the next of several attempts that brought nothing
CHUNK = 1 << 16
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # answers after which waiting may help
GROWTH = 4  # a zip of pictures that unpacks to more than so many times its size is a bomb


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


class _Failed(Exception):
    """An attempt that brought nothing of use; another may."""


def download(
    folder: Path, dataset: str = "ham10000", parts: Sequence[str] = PARTS, by_hand: str = ""
) -> None:
    """Makes `folder` hold the named parts of a dataset, unpacked; what is there stays.

    Files that lie in `folder` or in `by_hand` under their published names are used instead of
    fetched ones. Raises `MelanomaError` for a file that is not the published one, a full disk,
    or a server that cannot be reached; the same call goes on from there.
    """
    asked = [file for file in FILES if file.dataset == dataset and file.part in parts]
    with lock(folder / ".download.lock"):
        missing = []
        for file in asked:
            if _complete(folder, file):
                print(f"{file.stem}: complete", flush=True)
            else:
                missing.append(file)
        found = {file: _lying(file, (folder, by_hand)) for file in missing}
        _check_space(folder, found)
        for file in missing:
            source = found[file] or _fetch(folder, file, [f for f in missing if not found[f]])
            _install(folder, file, source)
            if not found[file] and file.pictures:
                source.unlink()  # unpacked, and not the user's own


def _complete(folder: Path, file: OfficialFile) -> bool:
    """Whether what a file holds is there: in its own folder, or with its part's all together."""
    if not file.pictures:
        return any((folder / name).is_file() for name in file.names)
    kind = int(file.part == "masks")
    whole = sum(f.pictures for f in FILES if (f.dataset, f.part) == (file.dataset, file.part))
    return (len(index_files(folder / file.stem)[kind]) >= file.pictures
            or len(index_files(folder)[kind]) >= whole)  # fmt: skip


def _lying(file: OfficialFile, folders: Iterable[Path | str]) -> Path | None:
    """The published file in one of the folders; raises `MelanomaError` for another content."""
    for folder in filter(None, folders):
        if not Path(folder).is_dir():
            raise MelanomaError(f"the folder {folder} that --from names does not exist")
        for path in (Path(folder, name) for name in file.names):
            if path.is_file():
                if (md5 := _md5(path)) != file.md5:
                    raise MelanomaError(
                        f"{path} is not the published file (md5 {md5}, published {file.md5}): "
                        f"broken off, or not {file.url}; delete it"
                    )
                return path
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _check_space(folder: Path, found: dict[OfficialFile, Path | None]) -> None:
    """Pictures are hardly smaller in their zip, which goes when they are unpacked."""
    sizes = [path.stat().st_size if path else file.size or 0 for file, path in found.items()]
    fetched = [file.size or 0 for file, path in found.items() if not path and file.pictures]
    there = sum(path.stat().st_size for path in folder.glob(".*.part"))
    _need(folder, sum(sizes) + max(fetched, default=0) - there)


def _need(folder: Path, size: int) -> None:
    if size > (free := shutil.disk_usage(folder).free):
        raise MelanomaError(
            f"{folder} needs {size / 1e9:.2f} GB more and the disk has {free / 1e9:.2f} GB free; "
            "make room or name another folder"
        )


def _fetch(folder: Path, file: OfficialFile, wanted: Sequence[OfficialFile]) -> Path:
    """Fetches a file, going on after every break; gives up when attempts bring nothing new."""
    part, longest, fruitless, wrong = folder / f".{file.name}.part", 0, 0, 0
    while True:
        try:
            _receive(file, part)
            if _md5(part) == file.md5:
                return part.replace(folder / file.name)
            part.unlink()
            wrong += 1
            raise _Failed("sent another content than the published one")
        except (requests.RequestException, _Failed) as error:
            reached = part.stat().st_size if part.exists() else 0
            fruitless = 0 if reached > longest else fruitless + 1
            longest = max(longest, reached)
            if wrong == 2 or fruitless > len(PAUSES):
                names = summarize_items(other.name for other in wanted)
                raise MelanomaError(
                    f"{file.name}: {_reason(error)}. The same command goes on from here; or fetch "
                    f"by hand from {DOI} (tables in their original format) what is missing of "
                    f"{names}, and name its folder with --from"
                ) from None
            pause = PAUSES[max(fruitless - 1, 0)]
            print(f"{file.name}: {_reason(error)}; trying again in {pause} s", flush=True)
            time.sleep(pause)


def _reason(error: Exception) -> str:
    server = SERVER.split("/")[2]
    if isinstance(error, requests.ReadTimeout):
        return f"{server} sends nothing"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{server} broke off"
    if isinstance(error, requests.ConnectionError):
        return f"{server} cannot be reached, or broke off"
    return f"{server} {str(error) or type(error).__name__}"


def _receive(file: OfficialFile, part: Path) -> None:
    """One attempt: appends to `part` what is still missing of a file."""
    start = part.stat().st_size if part.exists() else 0
    if start and start == file.size:
        return
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # there is nothing after what we have
            return
        start = _first_byte(answer, start, part)
        total = start + int(answer.headers["Content-Length"]) if (
            "Content-Length" in answer.headers) else file.size  # fmt: skip
        if file.size and total != file.size:
            raise _Failed(f"announces {total:,} bytes instead of the published {file.size:,}")
        _need(part.parent, (total or 0) - start)
        if not start:
            print(f"{file.name}: fetching {(total or 0) / 1e6:,.1f} MB", flush=True)
        with part.open("ab" if start else "wb") as stream, byte_bar(file.stem, start, total) as bar:
            for chunk in answer.iter_content(CHUNK):
                stream.write(chunk)
                stream.flush()
                bar.update(len(chunk))
                if total and stream.tell() > total:
                    break
    if total and part.stat().st_size != total:
        if part.stat().st_size > total:
            part.unlink()
        raise _Failed("sent another number of bytes than it announced")


def _first_byte(answer: requests.Response, start: int, part: Path) -> int:
    """Where in the file an answer begins; raises for one that is not of the file at all."""
    if answer.status_code in TEMPORARY:
        raise _Failed(f"answers {answer.status_code} {answer.reason}")
    if answer.status_code not in (200, 206):
        raise MelanomaError(
            f"{answer.url} answers {answer.status_code} {answer.reason}; fetch it by hand from "
            f"{DOI} and name its folder with --from"
        )
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise _Failed("sends a web page instead of the file")
    if answer.status_code == 200:
        return 0  # the whole file, whatever was asked for
    if not re.match(rf"bytes {start}-", answer.headers.get("Content-Range", "")):
        part.unlink(missing_ok=True)
        raise _Failed("sends another part of the file than was asked for")
    return start


def _install(folder: Path, file: OfficialFile, source: Path) -> None:
    if file.pictures:
        count = unpack(source, folder / file.stem)
        if count != file.pictures:
            raise MelanomaError(f"{source} holds {count} pictures instead of {file.pictures}")
        print(f"{file.stem}: {count:,} pictures unpacked", flush=True)
    elif source.parent != folder:
        with atomic_path(folder / file.name) as temporary:
            shutil.copyfile(source, temporary)


def unpack(archive: Path, folder: Path) -> int:
    """Unpacks the pictures of a zip file into `folder`, each whole or not at all; counts them.

    Folders inside count for nothing, and neither do the shadow files that macOS adds. Raises
    `MelanomaError`, before anything is written, for a path that leads elsewhere, a link, a
    password, one name twice, or pictures that grow beyond all measure.
    """
    scratch = folder.with_name(f".{folder.name}-unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed process
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(archive, file)
            scratch.mkdir(parents=True)
            for name, member in progress(members.items(), f"unpacking {folder.name}"):
                with file.open(member) as source, (scratch / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
        folder.mkdir(parents=True, exist_ok=True)
        for path in scratch.iterdir():
            path.replace(folder / path.name)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise MelanomaError(f"{archive} cannot be unpacked ({error}); fetch it again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(members)


def _members(archive: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The pictures in a zip file by their names without folders."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in file.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        faults = {
            "leads outside": path.is_absolute() or ".." in path.parts or ":" in member.filename,
            "is a link": stat.S_ISLNK(member.external_attr >> 16),
            "is encrypted": member.flag_bits & 1,
            "is there twice": path.name in members,
        }
        shadow = "__MACOSX" in path.parts or path.name.startswith(".")
        picture = path.suffix.lower() in SUFFIXES and not member.is_dir() and not shadow
        if fault := next((fault for fault, holds in faults.items() if holds), None):
            if picture or not fault.endswith("twice"):
                raise MelanomaError(f"{archive}: {member.filename!r} {fault}; nothing is unpacked")
        elif picture:
            members[path.name] = member
    size = sum(member.file_size for member in members.values())
    if size > GROWTH * archive.stat().st_size:
        raise MelanomaError(f"{archive} would grow to {size / 1e9:.2f} GB; nothing is unpacked")
    return members
