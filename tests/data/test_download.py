"""The official files from a server that stalls, lies and breaks off, and from a folder."""

import hashlib
import io
import stat
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tenacity
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data import download as module
from melanoma_lib.data.download import FILES, download, unpack


def picture(number):
    buffer = io.BytesIO()
    Image.effect_noise((24, 20), 90 + number).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
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


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        number, _, query = self.path.removeprefix("/file/").partition("?")
        server.requests.append((self.path, self.headers.get("Range")))
        file = next(file for file in server.files if str(file.number) == number)
        content = CONTENTS[file.name]
        if self.headers["User-Agent"].startswith("python"):
            return self.reply(403, b"no robots")
        if not file.pictures and query != "format=original":
            content = content.replace(b",", b"\t")
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(content):
            return self.reply(416, b"")
        behaviour = server.behaviours.pop(0) if server.behaviours else None
        if behaviour:
            return behaviour(self, content, start)
        return self.whole(content, start)

    def whole(self, content, start):
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.reply(206 if start else 200, content[start:], headers if start else {})

    def reply(self, status, body, headers=None, length=None):
        self.send_response(status)
        kind = {"Content-Type": "application/zip", "Content-Length": str(length or len(body))}
        for name, value in (kind | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# -- what the server may do, once for each request ---------------------------------------------


def breaks_off(handler, content, start):
    rest = content[start:]
    headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    handler.reply(206 if start else 200, rest[: len(rest) // 2], headers, len(rest))
    handler.close_connection = True


def stalls(handler, content, start):
    breaks_off(handler, content, start)
    handler.wfile.flush()
    time.sleep(1)


def ignores_the_range(handler, content, start):
    handler.reply(200, content)


def sends_another_range(handler, content, start):
    handler.reply(206, content[:50], {"Content-Range": f"bytes 0-49/{len(content)}"})


def sends_a_page(handler, content, start):
    handler.reply(200, b"<html>maintenance</html>", {"Content-Type": "text/html; charset=utf-8"})


def announces_less(handler, content, start):
    handler.reply(200, content[:-10])


def sends_other_bytes(handler, content, start):
    handler.reply(200, content[:-1] + bytes([content[-1] ^ 1]))


def is_busy(handler, content, start):
    handler.reply(503, b"")


def knows_nothing(handler, content, start):
    handler.reply(404, b"")


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
    for name, content in CONTENTS.items():
        if name.endswith("zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as file:
                expected = {
                    Path(member).name: file.read(member) for member in file.namelist()
                    if not member.startswith(("__MACOSX", "LICENSE"))
                }  # fmt: skip
            there = {path.name: path.read_bytes() for path in (folder / name[:-4]).iterdir()}
            assert there == expected
    assert {path.name for path in folder.iterdir()} == {
        ".download.lock", "HAM10000_metadata.csv",
        *(name[:-4] for name in CONTENTS if name.endswith("zip")),
    }  # fmt: skip


def test_everything_is_fetched_once(server, tmp_path, capsys):
    download(tmp_path)
    assert_complete(tmp_path)
    assert len(server.requests) == 4 and server.requests[0][0].endswith("?format=original")
    download(tmp_path)
    assert len(server.requests) == 4 and capsys.readouterr().out.count(": complete") == 4
    (tmp_path / "HAM10000_images_part_2" / "ISIC_0000012.jpg").unlink()
    download(tmp_path)
    assert_complete(tmp_path)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("behaviours", "ranges"),
    [
        ([breaks_off], [False, True]),
        ([stalls], [False, True]),
        ([breaks_off] * 7, [False] + [True] * 7),  # more often than there are attempts
        ([breaks_off, ignores_the_range], [False, True]),
        ([breaks_off, sends_another_range], [False, True, True]),
        ([breaks_off, sends_a_page, is_busy], [False, True, True, True]),
        ([announces_less], [False, False]),
        ([sends_other_bytes], [False, False]),
    ],
)
def test_the_file_arrives_whole_whatever_the_server_does(server, tmp_path, behaviours, ranges):
    server.behaviours = list(behaviours)
    server.files[1:] = [file for file in server.files if file.name == ZIP]
    module.FILES = tuple(server.files[1:])
    download(tmp_path, parts=["images"])
    assert [bool(asked) for _, asked in server.requests] == ranges
    with zipfile.ZipFile(io.BytesIO(CONTENTS[ZIP])) as file:
        for name in file.namelist():
            assert (tmp_path / ZIP[:-4] / name).read_bytes() == file.read(name)


def test_a_download_goes_on_in_the_next_run(server, tmp_path):
    server.behaviours = [breaks_off] + [is_busy] * 9
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
        (sends_other_bytes, "another content than the published"),
        (sends_a_page, "instead of the published"),
        (announces_less, "instead of the published"),
        (is_busy, "answers 503"),
        (knows_nothing, "answers 404"),
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
            for old in (folder / path.stem).iterdir():
                old.unlink()
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


# -- unpacking ---------------------------------------------------------------------------------


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def archive(folder, members, compression=zipfile.ZIP_STORED):
    path = folder / "x.zip"
    path.write_bytes(zipped(members, compression))
    return path


@pytest.mark.parametrize("name", ["../ISIC_1.jpg", "/tmp/ISIC_1.jpg", "a/../../ISIC_1.jpg"])
@pytest.mark.parametrize("kind", [str, link])
def test_no_picture_leads_out_of_its_folder(tmp_path, name, kind):
    unpack(archive(tmp_path, {kind(name): b"/etc/passwd"}), tmp_path / "out", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"x.zip", "out"}
    (picture,) = (tmp_path / "out").iterdir()
    assert picture.name == "ISIC_1.jpg" and not picture.is_symlink()


@pytest.mark.parametrize(
    ("members", "count", "fault"),
    [
        ({"a/ISIC_1.jpg": b"1", "b/ISIC_1.jpg": b"2"}, 2, "1 pictures instead of 2"),
        ({"ISIC_1.jpg": b"1"}, 2, "1 pictures instead of 2"),
        ({"ISIC_1.jpg": bytes(1_000_000)}, 1, "would grow"),
    ],
)
def test_an_archive_of_something_else_is_refused_and_leaves_nothing(
    tmp_path, members, count, fault
):
    path = archive(tmp_path, members, zipfile.ZIP_DEFLATED)
    with pytest.raises(MelanomaError, match=fault):
        unpack(path, tmp_path / "out", count)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b[:60] + b"\0" * 40 + b[100:]])
def test_a_broken_archive_is_one_line_and_leaves_nothing(tmp_path, damage):
    path = archive(tmp_path, {"ISIC_0.jpg": picture(0)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MelanomaError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out", 1)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".out-unpacking").mkdir()
    (tmp_path / ".out-unpacking" / "ISIC_7.jpg").write_bytes(b"half")
    unpack(archive(tmp_path, {"ISIC_0.jpg": picture(0)}), tmp_path / "out", 1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["ISIC_0.jpg"]
    assert not (tmp_path / ".out-unpacking").exists()
