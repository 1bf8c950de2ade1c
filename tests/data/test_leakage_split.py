"""The split with leakage: the same test images for all fractions, and nothing else that differs."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.split import (
    UNUSED,
    is_leaked,
    largest_leaked_fraction,
    leakage_split,
    make_split,
)


def table(seed=0, lesions=400):
    """Lesions of one to four images, every diagnosis among them."""
    rng = np.random.default_rng(seed)
    images = rng.choice([1, 2, 3, 4], lesions, p=[0.6, 0.2, 0.1, 0.1])
    rows = [(f"L{n}", CLASS_NAMES[n % 7]) for n in range(lesions) for _ in range(images[n])]
    table = pd.DataFrame(rows, columns=["lesion_id", "dx"])
    return table.assign(image_id=[f"I{n}" for n in range(len(rows))])


def images(split, name):
    return set(split["image_id"][split["part"] == name])


def lesions(split, name):
    return set(split["lesion_id"][split["part"] == name])


def leaking(split):
    return lesions(split, "test") & lesions(split, "train")


def test_an_example_by_hand():
    """One image of lesion a stays in the test split, the other takes the only training melanoma's
    place. Of the two other test lesions one stays, so that half of the test images can leak."""
    split = pd.DataFrame(
        [("m1", "m", "mel", "train"), ("n1", "n", "nv", "train"), ("n2", "n", "nv", "train"),
         ("v1", "v", "nv", "val"), ("a1", "a", "mel", "test"), ("a2", "a", "mel", "test"),
         ("b1", "b", "nv", "test"), ("c1", "c", "nv", "test")],
        columns=["image_id", "lesion_id", "dx", "part"],
    )  # fmt: skip
    clean = leakage_split(split, 0.5, 7, 0.0)
    (kept,) = images(clean, "test") & {"a1", "a2"}
    (single,) = images(clean, "test") & {"b1", "c1"}
    (sibling,) = {"a1", "a2"} - {kept}
    (left_out,) = {"b1", "c1"} - {single}
    assert images(clean, "train") == {"m1", "n1", "n2"} and images(clean, "val") == {"v1"}
    assert images(clean, UNUSED) == {sibling, left_out}
    leaky = leakage_split(split, 0.5, 7, 0.5)
    assert images(leaky, "test") == {kept, single} and images(leaky, "val") == {"v1"}
    assert images(leaky, "train") == {sibling, "n1", "n2"}
    assert images(leaky, UNUSED) == {"m1", left_out}
    with pytest.raises(MelanomaError, match=r"the largest possible is 0\.5$"):
        leakage_split(split, 0.5, 7, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_clean_and_leaky_differ_in_the_leak_alone(seed):
    metadata = table(seed)
    largest = largest_leaked_fraction(metadata, seed)
    ordinary = make_split(metadata, "lesion", seed)
    splits = [make_split(metadata, "lesion", seed, part * largest) for part in (0, 0.3, 0.6, 1)]
    clean = splits[0]
    assert images(clean, "train") == images(ordinary, "train")
    assert images(clean, "test") <= images(ordinary, "test")
    assert not is_leaked(clean).any()
    test = clean[clean["part"] == "test"]
    assert test["lesion_id"].is_unique
    for part, split in zip((0, 0.3, 0.6, 1), splits, strict=True):
        for name in ("val", "test"):
            assert images(split, name) == images(clean, name)
        assert not lesions(split, "val") & (lesions(split, "train") | lesions(split, "test"))
        assert len(leaking(split)) == round(part * largest * len(test))
        counts = [one[one["part"] == "train"]["dx"].value_counts() for one in (split, clean)]
        assert counts[0].to_dict() == counts[1].to_dict()
        incoming = images(split, "train") - images(clean, "train")
        siblings = ordinary[ordinary["lesion_id"].isin(leaking(split))]["image_id"]
        assert incoming == set(siblings) - set(test["image_id"])  # all siblings, and nothing else
    for smaller, larger in pairwise(splits):
        assert leaking(smaller) < leaking(larger)
        taken = [images(clean, "train") - images(split, "train") for split in (smaller, larger)]
        assert taken[0] <= taken[1]


def test_as_much_can_leak_as_in_the_split_by_image():
    metadata = table()
    largest = largest_leaked_fraction(metadata, 42)
    assert largest == pytest.approx(is_leaked(make_split(metadata, "image", 42)).mean(), abs=0.01)
    split = make_split(metadata, "lesion", 42, largest)
    several = metadata["lesion_id"].value_counts()
    assert all(several[lesion] > 1 for lesion in leaking(split))
    assert is_leaked(split).mean() > 0


def test_the_seed_draws():
    metadata = table()
    first, again = (make_split(metadata, "lesion", 1, 0.2) for _ in range(2))
    assert first.equals(again) and not first.equals(make_split(metadata, "lesion", 2, 0.2))


@pytest.mark.parametrize(
    ("fraction", "message"), [(0.9, "the largest possible is 0"), (1e-4, "the smallest possible")]
)
def test_a_fraction_that_is_not_possible_is_refused(fraction, message):
    with pytest.raises(MelanomaError, match=message):
        make_split(table(), "lesion", 42, fraction)


def test_nothing_leaks_where_every_lesion_has_one_image():
    with pytest.raises(MelanomaError, match="none can leak"):
        largest_leaked_fraction(table().drop_duplicates("lesion_id"), 42)


def test_ham10000_leaks_as_much_as_its_split_by_image(real_table):
    metadata = pd.read_csv(real_table)
    assert largest_leaked_fraction(metadata, 42) == 0.4073  # is_leaked: 0.4075 by image
    split = make_split(metadata, "lesion", 42, 0.4073)
    sizes = {"train": 6985, "val": 1522, UNUSED: 791, "test": 717}
    assert split["part"].value_counts().to_dict() == sizes
    assert len(leaking(split)) == 292
