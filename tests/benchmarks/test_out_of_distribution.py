import runpy

import pytest

from melanoma_lib.core.files import PROJECT


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(PROJECT / "benchmarks" / "out_of_distribution.py"))


def test_the_page_is_what_the_measurements_give(benchmark):
    assert benchmark["page"]() == benchmark["PAGE"].read_text(encoding="utf-8")


def test_no_picture_is_in_both_lists(benchmark):
    lists = [benchmark[name]() for name in ("chosen_on", "kept_apart")]
    seen = [{image.resize((32, 32)).tobytes() for image in each.values()} for each in lists]
    assert [len(each) for each in seen] == [len(each) for each in lists]
    assert not seen[0] & seen[1] and not set(lists[0]) & set(lists[1])
