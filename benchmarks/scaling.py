"""What more images need, calculated from measured rates; writes the table of docs/cloud.md.

    python benchmarks/scaling.py [FILE]

FILE is what benchmarks/speed.py has measured. Nothing here is measured.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from melanoma_lib.core.files import PROJECT, read_json, write_text
from melanoma_lib.evaluation.bootstrap import RESAMPLES

MEASURED = Path(__file__).with_name("speed-cpu.json")
PAGE = PROJECT / "docs" / "cloud.md"
BEGIN, END = "<!-- calculated: python benchmarks/scaling.py -->\n", "<!-- end -->"
# The two zip files of the images on the Harvard Dataverse (doi:10.7910/DVN/DBW86T), 10,015 in all;
# a zip does not make a JPEG smaller.
HAM10000_JPEG_BYTES = (1_366_522_108 + 1_403_566_547) / 10_015
TRAIN, VALIDATION, TEST = 0.70, 0.15, 0.15  # the parts of the split by lesion
PRICE_PER_HOUR = 0.096  # US dollars; Azure, Standard_D2s_v5, Linux, East US, early 2026
SIZES = {
    "HAM10000": 10_015,
    "ISIC 2019": 25_331,  # Combalia et al., 2019
    "ISIC archive": 400_000,
    "ten million": 10_000_000,
}


def needs(images: int, measured: Mapping, key: str = "resnet50") -> dict[str, float]:
    """What a dataset of so many images needs, by the heads of the table.

    An epoch trains on the training part and predicts the validation part; the bootstrap keeps a
    number of eight bytes for each resample and each image of the test part.
    """
    size, rates = measured["image_size"], measured["rates"][key]
    epoch = images * TRAIN / rates["ours"]["median"] / 3600
    epoch += images * VALIDATION / rates["predicting"]["median"] / 3600
    return {
        "JPEG files, GB": images * HAM10000_JPEG_BYTES / 1e9,
        f"pixels at {size} px, GB": images * size**2 * 3 / 1e9,
        "weights of the bootstrap, GB": images * TEST * RESAMPLES * 8 / 1e9,
        "decoding once, hours": images / measured["decoding"]["all"]["median"] / 3600,
        f"an epoch of {key}, hours": epoch,
        f"an epoch of {key}, US dollars": epoch * PRICE_PER_HOUR,
    }


def table(measured: Mapping, key: str = "resnet50") -> str:
    """The table of docs/cloud.md in Markdown: one row a need, one column a dataset."""
    columns = [needs(images, measured, key) for images in SIZES.values()]
    lines = [["", *(f"{name}: {images:,}" for name, images in SIZES.items())]]
    lines += [["---"] + ["---:"] * len(columns)]
    lines += [[head, *(_number(column[head]) for column in columns)] for head in columns[0]]
    rates = measured["rates"][key]
    basis = (
        f"Images a second, measured on {measured['date']} ({measured['device']}; decoding on "
        f"{measured['cores']} cores): decoding {measured['decoding']['all']['median']:.0f}, "
        f"training {rates['ours']['median']:.1f}, predicting {rates['predicting']['median']:.1f}. "
        f"An hour of such a machine: {PRICE_PER_HOUR} US dollars."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{basis}\n"


def _number(value: float) -> str:
    """Two significant digits, without an exponent."""
    digits = float(f"{value:.2g}")
    return f"{digits:,.0f}" if digits >= 10 else f"{digits:g}"


def page(text: str, measured: Mapping) -> str:
    """The page with its table made again."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table(measured) + END + rest.partition(END)[2]


if __name__ == "__main__":
    files = sys.argv[1:] or [MEASURED]
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), read_json(files[0])))
