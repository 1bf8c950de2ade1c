"""What the page shows: its frame, and the fragments of an answer."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.inference import page, wording
from melanoma_lib.inference.predictor import Decision
from melanoma_lib.inference.uploads import read_picture


@pytest.fixture
def picture(predictor, images):
    return read_picture(images[0].read_bytes(), predictor.image_size)


@pytest.fixture
def fragments(predictor, picture):
    """Makes the fragments of a prediction, by default the predictor's own, at a stated heat map."""
    (own,) = predictor.predict([picture.image])

    def make(**changes):
        heat = np.linspace(0, 1, predictor.image_size**2).reshape(2 * [predictor.image_size])
        changed = dataclasses.replace(own, **changes)
        return page.answer_fragments(predictor, changed, picture, MELANOMA, heat)

    return make


def test_a_picture_is_shown_with_its_proportions_and_given_as_the_predictor_reads_it(
    predictor, images
):
    picture = read_picture(images[0].read_bytes(), predictor.image_size)
    assert np.array_equal(picture.image, predictor.load_image(images[0]))
    Image.new("RGB", (3000, 1500)).save(wide := io.BytesIO(), "JPEG")
    assert read_picture(wide.getvalue(), 64).view.size == (1024, 512)
    Image.new("L", (30, 90)).save(small := io.BytesIO(), "PNG")
    shown = read_picture(small.getvalue(), 64)
    assert shown.view.size == (30, 90) and shown.image.shape == (64, 64, 3)


def test_an_answer_holds_every_operating_point_with_its_own_decision(predictor, fragments):
    """One threshold is above the probability and one below, so the decisions differ."""
    for probability in (0.001, 0.3, 0.999):
        rest = (1 - probability) / 6
        given = dict.fromkeys(CLASS_NAMES, rest) | {MELANOMA: probability}
        answer = fragments(probabilities=given, out_of_distribution=False)
        assert set(answer["points"]) == set(predictor.operating_points)
        for name, shown in answer["points"].items():
            threshold = predictor.operating_points[name]["threshold"]
            outcome = "positive" if probability >= threshold else "negative"
            assert f"Predicted {outcome} for melanoma" in shown["verdict"]
            assert outcome in shown["short"]
            for part in (shown["verdict"], shown["axis"]):
                assert wording.percent(probability) in part and wording.percent(threshold) in part


def test_the_probabilities_are_a_table_in_descending_order(fragments):
    given = dict(zip(CLASS_NAMES, (0.02, 0.05, 0.5, 0.03, 0.3, 0.09, 0.01), strict=True))
    table = fragments(probabilities=given)["probabilities"]
    names = re.findall(r'<th scope="row"[^>]*>(.+?)</th>', table)
    assert names == [DISPLAY_NAMES[code] for code in sorted(given, key=given.get, reverse=True)]
    assert re.findall(r'class="value">(.+?)<', table)[:2] == ["50%", "30%"]


def test_a_picture_out_of_distribution_gets_no_verdict_in_any_words(fragments):
    answer = fragments(out_of_distribution=True)
    assert answer["out_of_distribution"] and not answer["most_probable"]
    for shown in answer["points"].values():
        heading = re.search(r"<h2.*?>(.*?)</h2>", shown["verdict"])[1]
        assert heading == wording.NO_VERDICT and not shown["asks"]
        assert not re.search("positive|negative|%", shown["verdict"] + shown["short"])


def test_a_referred_picture_is_not_coloured_by_the_decision_that_it_does_not_get(
    predictor, prediction
):
    point = predictor.operating_point() | {"referral": None}
    given = {"operating_point": point, "near_threshold": False, "referred": True}
    known = dataclasses.replace(prediction, out_of_distribution=False)
    positive, negative = (
        page.verdict_html(known, Decision(predicted_positive=each, fraction_below={}, **given))
        for each in (True, False)
    )
    assert positive == negative and wording.REFERRED[1:] in positive


def test_the_summary_counts_the_signs_named(predictor, fragments):
    for shown in fragments()["points"].values():
        first, *others = shown["summaries"]
        assert "none of the signs" in first
        assert all(f"{number} of the" in text for number, text in enumerate(others, 1))


def test_the_picture_and_its_map_are_pictures(fragments, picture):
    answer = fragments()
    for key, size in (("picture", picture.view.size), ("input", picture.image.shape[1::-1]),
                      ("heat", picture.image.shape[1::-1])):  # fmt: skip
        data = base64.b64decode(answer[key].partition(",")[2])
        assert Image.open(io.BytesIO(data)).size == size


def test_the_frame_says_what_the_page_is_and_is_not_before_it_asks_for_a_picture(predictor):
    text = page.page_html([predictor], "specificity_95")
    before = text.partition('type="file"')[0]
    assert wording.DISCLAIMER in before and wording.GENERATED in before
    assert "elanoma" in re.search("<title>(.*?)</title>", text)[1]
    assert "elanoma" in re.search("<h1>(.*?)</h1>", text)[1] and '<html lang="en">' in text
    for name in DISPLAY_NAMES.values():
        assert f'aria-label="example: {name}"' in text
    assert re.findall(r'value="(\w+)" checked', text) == ["specificity_95"]
    assert "$" not in text


def test_the_model_card_is_paragraphs_without_marks():
    card = "# Model card\n\n**What.** A `file`\nin [a <place>](x.md).\n\n- one\n  item\n- two\n"
    text = page.model_card_html(card)
    assert "<h1>Model card</h1>" in text
    assert "<pre>What. A file in a &lt;place&gt;.\n\n- one item\n- two" in text


class Elements(HTMLParser):
    """The ids and the open elements of a page; raises AssertionError where tags do not match."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.ids, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_script_finds_every_element_it_asks_for(predictor, fragments):
    """And the page and its fragments are well-formed."""
    elements = Elements(page.page_html([predictor], "specificity_95", figures=True))
    assert len(set(elements.ids)) == len(elements.ids)
    script = (page.STATIC / "page.js").read_text()
    asked = set(re.findall(r"""["'`]#([a-z-]+)""", script))
    assert len(asked) > 15 and asked <= set(elements.ids)
    answer = fragments()
    for shown in answer["points"].values():
        Elements(shown["verdict"] + shown["axis"] + answer["probabilities"])
    Elements(page.login_html("Busy & <b>")), Elements(page.figures_html(["01-1-a.png"]))


def luminance(colour):
    """Relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(*colours):
    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_every_ground_light_and_dark():
    """Contrast of at least 4.5, and 3 for borders (WCAG 2.2, 1.4.3 and 1.4.11)."""
    assert round(contrast("#000", "#ffffff"), 1) == 21
    css = (page.STATIC / "page.css").read_text()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w+)", rules)) for rules in re.findall(r":root {(.*?)}",
        css, re.S)
    ]  # fmt: skip
    assert len(schemes) == 2 and set(schemes[0]) == set(schemes[1])
    for scheme in schemes:
        for ground in ("back", "panel"):
            for text in ("text", "quiet", "accent"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5
            for edge in ("border", "alarm", "accent"):
                assert contrast(scheme[edge], scheme[ground]) >= 3
        assert contrast(scheme["accent"], scheme["on-accent"]) >= 4.5
