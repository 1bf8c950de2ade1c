"""Trained models on a stand-in for the Hugging Face Hub: what its HTTP interface must answer."""

import base64
import hashlib
import http.server
import json
import re
import threading

import huggingface_hub.constants
import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json, write_text
from melanoma_lib.models import hub
from melanoma_lib.models.bundle import find_bundles

NAME = "me/net"


def is_private(body):
    return body.get("private", body.get("visibility") == "private")


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository in memory: `files` by name, `private`, `sent` (names), `commits`."""

    def answer(self, content=b"", status=200, **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        state, path = self.server.state, self.path.partition("?")[0]
        if state["private"] is None:
            return self.answer({}, 404, X_Error_Code="RepoNotFound")
        if found := re.fullmatch(rf"/{NAME}/resolve/([^/]+)/(.+)", path):
            content = state["files"].get(found[2])
            if content is None:
                return self.answer({}, 404, X_Error_Code="EntryNotFound")
            tag = hashlib.sha1(content).hexdigest()
            return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=state["commit"])
        if "/tree/" in path:
            rows = [{"type": "file", "path": name, "size": len(content),
                     "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in state["files"].items()]  # fmt: skip
            return self.answer(rows)
        if "/revision/" in path and not path.endswith(("/main", f"/{state['commit']}")):
            return self.answer({}, 404, X_Error_Code="RevisionNotFound")
        return self.answer({
            "id": NAME, "sha": state["commit"], "private": state["private"], "tags": [],
            "siblings": [{"rfilename": name} for name in state["files"]],
        })  # fmt: skip

    do_HEAD = do_GET

    def do_POST(self):
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state["tokens"].add(self.headers.get("Authorization"))
        if self.path.endswith("/repos/create"):
            state["private"] = is_private(json.loads(body))
            return self.answer({"url": f"https://huggingface.co/{NAME}", "name": NAME})
        if self.path.endswith("/validate-yaml"):  # of the card
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer({"files": [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False,
                 "oid": hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest() if old else None}
                for each in files for old in [state["files"].get(each["path"])]
            ]})  # fmt: skip
        for line in body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                state["files"][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                state["sent"].append(row["value"]["path"])
        state["commit"] = hashlib.sha1(body).hexdigest()
        return self.answer({"success": True, "commitOid": state["commit"],
                            "commitUrl": f"https://huggingface.co/{NAME}/commit/{state['commit']}"})

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.state["private"] = is_private(body)
        return self.answer({})

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The state of a stand-in that the hub's client talks to; its repository is not there yet."""
    standing = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    standing.state = {"files": {}, "private": None, "sent": [], "tokens": set(), "commit": "0" * 40}
    threading.Thread(target=standing.serve_forever, daemon=True).start()
    constants, address = huggingface_hub.constants, f"http://127.0.0.1:{standing.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield standing.state
    standing.shutdown()
    standing.server_close()


@pytest.fixture
def folder(tmp_path):
    """What is uploaded: a run's folder with one model."""
    for name in hub.BUNDLE_FILES:
        write_text(tmp_path / "up" / "net" / name, f"content of {name}")
    write_text(tmp_path / "up" / "split.csv", "image_id,part\n")
    write_text(tmp_path / "up" / "README.md", "card")
    return tmp_path / "up"


def test_what_was_uploaded_is_fetched(server, folder):
    asked = []
    address = hub.upload(folder, NAME, False, lambda name: asked.append(name) or True)
    assert NAME in address and server["private"] is True and not asked
    assert sorted(server["files"]) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )
    for revision in ("", "@main", f"@{server['commit']}"):
        (bundle,) = find_bundles(f"hf://{NAME}{revision}")
        assert (bundle / "run.json").read_text() == "content of run.json"
        assert (bundle.parent / "split.csv").exists() and not (bundle.parent / "README.md").exists()
    assert server["tokens"] == {"Bearer hf_secret"}
    assert not [path for path in folder.parent.rglob("*") if path.is_file()
                and b"hf_secret" in path.read_bytes()]  # fmt: skip


def test_the_same_upload_sends_what_is_missing(server, folder):
    hub.upload(folder, NAME, False, lambda name: True)
    server["files"].pop("net/run.json")
    server["sent"].clear()
    hub.upload(folder, NAME, False, lambda name: True)
    assert server["sent"] == ["net/run.json"]


def test_nothing_becomes_public_without_consent(server, folder):
    refused = pytest.raises(MelanomaError, match="nothing was sent")
    with refused:
        hub.upload(folder, NAME, True, lambda name: False)
    assert server["private"] is None and not server["files"]
    hub.upload(folder, NAME, True, lambda name: True)
    assert server["private"] is False
    server["sent"].clear()
    with refused:  # it is public already, so a private upload would be read by everybody
        hub.upload(folder, NAME, False, lambda name: False)
    assert not server["sent"]


@pytest.mark.parametrize("address", ["hf://me/net@v9", "hf://not a name", "hf://me/net"])
def test_what_cannot_be_fetched_is_one_line(server, folder, address):
    if address.endswith("v9"):
        hub.upload(folder, NAME, False, lambda name: True)
    with pytest.raises(MelanomaError) as caught:
        find_bundles(address)
    assert address in str(caught.value) and "\n" not in str(caught.value)


def test_a_repository_without_a_bundle_is_refused(server, tmp_path):
    write_json(tmp_path / "up" / "config.json", {})
    hub.upload(tmp_path / "up", NAME, False, lambda name: True)
    with pytest.raises(MelanomaError, match="no trained model"):
        find_bundles(f"hf://{NAME}")
