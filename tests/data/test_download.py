"""The official files from a server that stalls, lies and breaks off, and from a folder."""

import hashlib
import io
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tenacity
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data import download as module
from melanoma_lib.data.download import FILES, download


def picture(number):
    buffer = io.BytesIO()
    Image.effect_noise((24, 20), 90 + number).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


CONTENTS = {
    "HAM10000_metadata.csv": b"lesion_id,image_id,dx\n" * 50,
    "HAM10000_images_part_1.zip": zipped({f"ISIC_000000{n}.jpg": picture(n) for n in range(5)}),
    "HAM10000_images_part_2.zip": zipped({f"a/ISIC_000001{n}.jpg": picture(n) for n in range(4)}),
    "HAM10000_segmentations_lesion_tschandl.zip": zipped(
        {f"masks/ISIC_000000{n}_segmentation.png": picture(n) for n in range(9)}
        | {"__MACOSX/._ISIC_0000000_segmentation.png": b"shadow", "LICENSE.txt": b"CC"}
    ),
}
PICTURES = {"1": 5, "2": 4, "l": 9}  # by the last letter of the file's stem
ZIP = "HAM10000_images_part_1.zip"


def rest(content, start):
    return (206 if start else 200), content[start:]


def half(content, start):
    status, body = rest(content, start)
    return status, body[: len(body) // 2], len(body)


# What the server may do, once for each request: status, body, and the length that it announces.
BEHAVIOURS = {
    "sends the rest": rest,
    "breaks off": half,
    "stalls": half,
    "ignores the range": lambda content, start: (200, content),
    "sends another range": lambda content, start: (206, content[:50]),
    "sends a page": lambda content, start: (200, b"<html>maintenance</html>"),
    "announces less": lambda content, start: (200, content[:-10]),
    "sends other bytes": lambda content, start: (200, content[:-1] + bytes([content[-1] ^ 1])),
    "is busy": lambda content, start: (503, b""),
    "knows nothing": lambda content, start: (404, b""),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        number, _, query = self.path.removeprefix("/file/").partition("?")
        server.requests.append((self.path, asked))
        file = next(file for file in server.files if str(file.number) == number)
        content = CONTENTS[file.name]
        if not file.pictures and query != "format=original":
            content = content.replace(b",", b"\t")
        start = int((asked or "bytes=0-")[6:-1])
        behaviour = "sends the rest"
        if self.headers["User-Agent"].startswith("python"):
            answer = 403, b"no robots"
        elif start >= len(content):
            answer = 416, b""
        else:
            behaviour = server.behaviours.pop(0) if server.behaviours else behaviour
            answer = BEHAVIOURS[behaviour](content, start)
        status, body, length = (*answer, len(answer[1]))[:3]
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        if behaviour == "stalls":
            self.wfile.flush()
            time.sleep(1)
        self.close_connection |= length > len(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    files = []
    for number, (name, content) in enumerate(CONTENTS.items()):
        published = next(file for file in FILES if file.name == name)
        pictures = PICTURES.get(published.stem[-1], 0) if name.endswith("zip") else 0
        files.append(replace(
            published, number=number, md5=hashlib.md5(content).hexdigest(), size=len(content),
            pictures=pictures,
        ))  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.behaviours, server.requests = files, [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(module, "SERVER", f"http://127.0.0.1:{server.server_port}/file/")
    monkeypatch.setattr(module, "FILES", tuple(files))
    monkeypatch.setattr(module._receive.retry, "wait", tenacity.wait_none())
    monkeypatch.setattr(module, "TIMEOUT", (2, 0.3))
    monkeypatch.setattr(module, "CHUNK", 100)
    yield server
    server.shutdown()
    server.server_close()


def assert_complete(folder):
    assert (folder / "HAM10000_metadata.csv").read_bytes() == CONTENTS["HAM10000_metadata.csv"]
    archives = [name for name in CONTENTS if name.endswith("zip")]
    for name in archives:
        with zipfile.ZipFile(io.BytesIO(CONTENTS[name])) as file:
            for member in file.namelist():
                assert (folder / name[:-4] / member).read_bytes() == file.read(member)
    assert {path.name for path in folder.iterdir()} == {
        ".download.lock", "HAM10000_metadata.csv", *(name[:-4] for name in archives)
    }  # fmt: skip


def test_everything_is_fetched_once(server, tmp_path, capsys):
    download(tmp_path)
    assert_complete(tmp_path)
    assert len(server.requests) == 4 and server.requests[0][0].endswith("?format=original")
    download(tmp_path)
    assert len(server.requests) == 4 and capsys.readouterr().out.count(": complete") == 4
    (tmp_path / "HAM10000_images_part_2" / "a" / "ISIC_0000012.jpg").unlink()
    download(tmp_path)
    assert_complete(tmp_path)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("behaviours", "ranges"),
    [
        (["breaks off"], [False, True]),
        (["stalls"], [False, True]),
        (["breaks off"] * 7, [False] + [True] * 7),  # more often than there are attempts
        (["breaks off", "ignores the range"], [False, True]),
        (["breaks off", "sends another range"], [False, True, True]),
        (["breaks off", "sends a page", "is busy"], [False, True, True, True]),
        (["announces less"], [False, False]),
        (["sends other bytes"], [False, False]),
    ],
)
def test_the_file_arrives_whole_whatever_the_server_does(server, tmp_path, behaviours, ranges):
    server.behaviours = ["sends the rest", *behaviours]  # the table, then the first zip
    download(tmp_path)
    assert_complete(tmp_path)
    zip_requests = [bool(asked) for path, asked in server.requests if path.endswith("/1")]
    assert zip_requests == ranges


def test_a_download_goes_on_in_the_next_run(server, tmp_path):
    server.behaviours = ["breaks off"] + ["is busy"] * 9
    with pytest.raises(MelanomaError, match=r"answers 503 .*The same command goes on"):
        download(tmp_path, parts=["images"])
    part = (tmp_path / f".{ZIP}.part").stat().st_size
    assert 0 < part < len(CONTENTS[ZIP])
    server.behaviours, server.requests[:] = [], []
    download(tmp_path)
    assert server.requests[1][1] == f"bytes={part}-"
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sends other bytes", "another content than the published"),
        ("sends a page", "instead of the published"),
        ("announces less", "instead of the published"),
        ("is busy", "answers 503"),
        ("knows nothing", "answers 404"),
    ],
)
def test_a_server_that_keeps_lying_is_one_line_with_the_ways_out(
    server, tmp_path, behaviour, message
):
    server.behaviours = [behaviour] * 50
    with pytest.raises(MelanomaError, match=message) as error:
        download(tmp_path)
    assert module.DOI in str(error.value) and "--from" in str(error.value)
    assert len(server.requests) <= module.ATTEMPTS
    assert not any(path.stat().st_size for path in tmp_path.glob("*[!k]"))  # all but the lock


def test_a_host_that_cannot_be_reached(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SERVER", "http://127.0.0.1:9/")
    assert main(["data", "download", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "127.0.0.1:9 cannot be reached" in text
    assert all(name in text for name in CONTENTS) and "--from" in text


def test_files_fetched_by_hand_need_no_server(server, tmp_path, capsys):
    hand, folder = tmp_path / "hand", tmp_path / "data"
    hand.mkdir()
    for name, content in CONTENTS.items():
        (hand / ("HAM10000_metadata" if "metadata" in name else name)).write_bytes(content)
    assert main(["data", "download", str(folder), "--from", str(hand)]) == 0
    assert_complete(folder)
    assert not server.requests and len(list(hand.iterdir())) == 4

    for path in hand.iterdir():  # lying where they belong
        if path.suffix:
            path.rename(folder / path.name)
            shutil.rmtree(folder / path.stem)
    download(folder)
    assert not server.requests and len(list(folder.glob("*.zip"))) == 3
    for path in folder.glob("*.zip"):
        path.unlink()
    assert_complete(folder)

    (hand / ZIP).write_bytes(CONTENTS[ZIP][:-1])
    with pytest.raises(MelanomaError, match=r"part_1.zip is not the published file \(md5 \w+"):
        download(tmp_path / "other", by_hand=str(hand))
    with pytest.raises(MelanomaError, match="absent that --from names does not exist"):
        download(tmp_path / "other", by_hand=str(tmp_path / "absent"))


def test_a_table_that_lies_there_already_is_checked(server, tmp_path):
    table = tmp_path / "HAM10000_metadata.csv"
    table.write_bytes(CONTENTS[table.name][:-1])
    with pytest.raises(MelanomaError, match=r"metadata\.csv is not the published file"):
        download(tmp_path, parts=["table"])
    assert not server.requests and table.read_bytes() == CONTENTS[table.name][:-1]


def test_parts_can_be_chosen(server, tmp_path):
    assert main(["data", "download", str(tmp_path), "--parts", "table", "masks"]) == 0
    assert {path.name for path in tmp_path.glob("[!.]*")} == {
        "HAM10000_metadata.csv", "HAM10000_segmentations_lesion_tschandl",
    }  # fmt: skip


def test_room_is_checked_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    need = sum(map(len, CONTENTS.values())) + max(map(len, CONTENTS.values()))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(MelanomaError, match="make room or name another folder"):
        download(tmp_path)
    assert not server.requests


def test_what_is_published_is_stated_once():
    assert len({file.md5 for file in FILES}) == len({file.number for file in FILES}) == 6
    images = [file for file in FILES if (file.dataset, file.part) == ("ham10000", "images")]
    assert sum(file.pictures for file in images) == 10_015
    assert all(len(file.md5) == 32 for file in FILES)


def test_what_a_killed_process_left_is_cleared_and_other_files_stay(server, tmp_path):
    scratch, folder = tmp_path / f".{ZIP[:-4]}-unpacking", tmp_path / ZIP[:-4]
    for place, name in ((scratch, "ISIC_7.jpg"), (folder, "mine.txt")):
        place.mkdir()
        (place / name).write_bytes(b"half")
    download(tmp_path, parts=["images"])
    assert not scratch.exists() and (folder / "mine.txt").read_bytes() == b"half"
    assert len(list(folder.glob("*.jpg"))) == 5
