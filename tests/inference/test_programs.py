"""The examples of docs/web_page.md for programs, executed against a page with a login."""

import contextlib
import io
import json
import re
import shutil
import subprocess

import pytest
import requests
from helpers import ROOT

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.inference import app, security

PAGE = "http://127.0.0.1:7860/"


@pytest.fixture
def documented(predictor, served):
    """The code blocks of the document by language, with the address of a running page."""
    text = (ROOT / "docs" / "web_page.md").read_text()
    server = served(app.WebPage([predictor], login=security.Login("ada", "secret")))
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.S))
    assert PAGE in blocks["python"] and PAGE in blocks["shell"]
    return {language: code.replace(PAGE, server.url) for language, code in blocks.items()}


@pytest.fixture
def folder(images, tmp_path, monkeypatch):
    """Is the working folder, with the picture of the examples."""
    shutil.copy(images[0], tmp_path / "mole.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(code):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    return printed.getvalue()


def run_shell(code):
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    return subprocess.check_output(["sh", "-ec", code], text=True, timeout=60)


def test_the_examples_print_the_probability(documented, folder, predictor):
    (prediction,) = predictor.predict([predictor.load_image(folder / "mole.jpg")])
    expected = prediction.melanoma_probability
    assert float(run_python(documented["python"])) == pytest.approx(expected)
    answer = json.loads(run_shell(documented["shell"]))
    assert answer["images"][0]["probabilities"][MELANOMA] == pytest.approx(expected)
    assert answer["operating_point"]["name"] == "sensitivity_95"


def test_an_error_is_the_documented_line(documented, folder):
    (folder / "mole.jpg").write_text("no picture")
    assert run_python(documented["python"]) == documented["text"]
    assert run_shell(documented["shell"]) in documented["text"]


def test_a_wrong_password_is_an_error(documented, folder):
    with pytest.raises(requests.HTTPError, match="401"):
        run_python(documented["python"].replace('"secret"', '"guess"'))
    wrong = run_shell(documented["shell"].replace("=secret", "=guess"))
    assert security.WRONG in wrong and wrong.endswith("Log in first.")
