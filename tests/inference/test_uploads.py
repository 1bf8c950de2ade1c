"""Uploads: what is refused, what is held, and that nothing stays."""

import io
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from helpers import wait_for
from PIL import Image

from melanoma_lib.inference import uploads


def start_upload(url, length, body=b"", headers=""):
    """A connection on which a request has sent only a part of its body."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(
        f"POST /answer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}\r\n{headers}"
        "\r\n".encode() + body
    )
    return connection


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no picture", ["none of JPEG, PNG", "JPEG or PNG", "20 MB"]),
        (None, ["50 million pixels", "JPEG or PNG"]),
    ],
)
def test_what_is_no_picture_is_told_with_what_to_do(page, data, words):
    _, post = page
    if data is None:  # Pillow's own words for it are "decompression bomb DOS attack"
        Image.new("1", (20_000, 20_000)).save(file := io.BytesIO(), "PNG")
        data = file.getvalue()
    answer = post("answer", data)
    assert answer.status_code == 422 and all(word in answer.text for word in words)
    assert "attack" not in answer.text and "BytesIO" not in answer.text


def test_a_file_that_is_too_large_is_refused_and_not_held(page, monkeypatch):
    site, post = page
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 100_000)
    answer = post("answer", bytes(5_000_000))  # more than a socket buffers
    assert answer.status_code == 413 and "MB" in answer.text
    assert (site.uploads.requests, site.uploads.held_bytes) == (0, 0)


def test_a_body_longer_than_it_was_said_to_be_is_refused(page):
    site, _ = page
    with start_upload(site.url, 3, b"2\r\nab\r\n9\r\ncdefghijk\r\n0\r\n\r\n",
                      "Transfer-Encoding: chunked\r\n") as connection:  # fmt: skip
        status = connection.recv(1000).split()[1]
    assert status in (b"400", b"411", b"413") and site.uploads.held_bytes == 0


def test_without_a_length_nothing_is_read(page):
    _, post = page
    assert post("answer", iter([b"a", b"b"])).status_code == 411


@pytest.mark.parametrize(("limit", "value"), [("MAX_REQUESTS", 2), ("MAX_HELD_BYTES", 2500)])
def test_all_uploads_together_have_a_limit_and_the_next_one_is_told_when(
    page, images, monkeypatch, limit, value
):
    site, post = page
    picture = images[0].read_bytes()
    monkeypatch.setattr(uploads, limit, value)
    with start_upload(site.url, 1200, b"a"), start_upload(site.url, 1200, b"b"):
        wait_for(lambda: site.uploads.requests == 2)
        busy = post("answer", picture)
        assert busy.status_code == 503 and busy.text == uploads.BUSY
        assert int(busy.headers["Retry-After"]) > 0
    wait_for(lambda: site.uploads.requests == 0)  # both broke off
    monkeypatch.setattr(uploads, limit, 10**9)
    assert post("answer", picture).status_code == 200 and site.uploads.held_bytes == 0


def test_an_upload_that_stalls_is_given_up(page, monkeypatch):
    site, _ = page
    monkeypatch.setattr(uploads, "RECEIVE_SECONDS", 0.2)
    with start_upload(site.url, 1000, b"abc") as connection:
        assert connection.recv(1000).split()[1] == b"408"
    assert site.uploads.held_bytes == 0


def test_no_file_is_written_of_any_upload(page, images, tmp_path, monkeypatch):
    """Not while it is sent, nor of one that breaks off; so nothing can be left behind."""
    site, post = page
    post("answer", images[0].read_bytes())  # so that libraries have written what they write once
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Image.effect_noise((1500, 1500), 90).save(file := io.BytesIO(), "PNG")
    data = file.getvalue()
    with start_upload(site.url, len(data), data[: len(data) // 2]):
        wait_for(lambda: site.uploads.requests == 1)
        assert post("answer", data).status_code == 200
        assert not list(tmp_path.iterdir())
        opened = Path("/proc/self/fd")  # an unnamed file would be open
        links = [link.readlink() for link in opened.iterdir() if link.is_symlink()]
        assert not [path for path in links if str(tmp_path) in str(path)]
    wait_for(lambda: site.uploads.requests == 0)
    assert not list(tmp_path.iterdir())


def test_as_many_pictures_are_decoded_at_a_time_as_fit_into_memory(page, images, monkeypatch):
    from melanoma_lib.inference import app

    site, post = page
    at_work, most, lock = 0, 0, threading.Lock()
    read = app.read_picture

    def slow_read(*arguments):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.05)
        with lock:
            at_work -= 1
        return read(*arguments)

    monkeypatch.setattr(app, "read_picture", slow_read)
    data, statuses = images[0].read_bytes(), []
    threads = [
        threading.Thread(target=lambda: statuses.append(post("answer", data).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8 and 1 <= most <= uploads.MAX_AT_WORK
    assert requests.get(site.url, timeout=10).ok
