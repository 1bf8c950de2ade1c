"""A report to take along: what is in it."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.inference import page as html_page
from melanoma_lib.inference import report, wording
from melanoma_lib.inference.uploads import read_picture

ABOUT = {"name": "left arm $1$.jpg", "point": "sensitivity_95", "class": "mel"}


@pytest.fixture
def given(predictor, images):
    """What both kinds of report take, but for `ABOUT`."""
    picture = read_picture(images[0].read_bytes(), predictor.image_size)
    (prediction,) = predictor.predict([picture.image])
    heat = np.eye(predictor.image_size)
    known = dataclasses.replace(prediction, out_of_distribution=False)
    return [predictor, known, picture, heat]


def test_the_document_holds_all_that_the_decision_rests_on(given):
    document = report.report_document(*given, ABOUT)
    predictor, prediction, picture, heat = given
    point = document["operating_point"]
    assert point["name"] == ABOUT["point"] and point["test"]["sensitivity"]["low"] is not None
    (row,) = document["images"]
    assert row["image"] == ABOUT["name"] and set(row["probabilities"]) == set(CLASS_NAMES)
    decision = predictor.decide(prediction, ABOUT["point"])
    assert row["called_melanoma"] == decision.predicted_positive
    assert document["notice"] == wording.DISCLAIMER and document["model"] == predictor.name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", document["date"])
    assert document["heat_map"] == {"class": "mel", "image": html_page.heat_url(heat)}
    data = base64.b64decode(document["picture"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == picture.view.size


def test_the_pdf_is_one_page_and_names_what_the_document_does(given):
    data = report.report_pdf(*given, ABOUT)
    assert data.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", data)) == 1
    predictor, prediction, *_ = given
    text = " ".join(report._text(predictor, prediction, ABOUT))
    decision = predictor.decide(prediction, ABOUT["point"])
    for part in (wording.decision_text(decision), wording.percent(prediction.melanoma_probability),
                 predictor.name, "95% interval", "not a medical device"):  # fmt: skip
        assert part in text


def test_of_a_foreign_picture_neither_report_has_a_decision(given):
    given[1] = dataclasses.replace(given[1], out_of_distribution=True)
    (row,) = report.report_document(*given, ABOUT)["images"]
    assert row["called_melanoma"] is None and row["foreign"]
    text = " ".join(report._text(given[0], given[1], ABOUT))
    assert wording.NO_VERDICT in text and not re.search("positive|negative", text)
    assert report.report_pdf(*given, ABOUT).startswith(b"%PDF")


@pytest.mark.parametrize(("format", "start"), [("pdf", b"%PDF"), ("json", b"{")])
def test_a_report_is_asked_for_with_the_picture(page, images, format, start):
    _, post = page
    query = f"report?format={format}&point=sensitivity_95&class=mel&name=x"
    answer = post(query, images[0].read_bytes())
    assert answer.status_code == 200 and answer.content.startswith(start)
