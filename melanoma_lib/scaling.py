"""Scale: what more images need, calculated from measured rates; `python -m` writes docs/cloud.md.

Nothing here is measured, and nothing in benchmarks/rates.json is estimated. `python -m` with a file
of benchmarks/speed.py takes its rates first.
"""

import sys
from collections.abc import Mapping

from melanoma_lib.core.files import PROJECT, read_json, write_json, write_text
from melanoma_lib.evaluation.bootstrap import RESAMPLES

RATES = PROJECT / "benchmarks" / "rates.json"
PAGE = PROJECT / "docs" / "cloud.md"
# The two zip files of the images on the Harvard Dataverse (doi:10.7910/DVN/DBW86T), 10,015 in all;
# a zip does not make a JPEG smaller.
HAM10000_JPEG_BYTES = (1_366_522_108 + 1_403_566_547) / 10_015
TRAIN, VALIDATION, TEST = 0.70, 0.15, 0.15  # the parts of the split by lesion
SIZES = {
    "HAM10000": 10_015,
    "ISIC 2019": 25_331,  # Combalia et al., 2019
    "ISIC archive": 400_000,
    "ten million": 10_000_000,
}
BEGIN, END = "<!-- calculated: python -m melanoma_lib.scaling -->\n", "<!-- end -->"


def rates_of(measured: Mapping) -> dict:
    """The medians of a whole file of benchmarks/speed.py, images a second, as rates.json has them.

    `train` and `predict` by architecture, `decode`; with machine, date and image size.
    """
    rates = {name: measured[name] for name in ("date", "image_size", "jpeg_bytes")}
    rates["machine"] = f"{measured['device']}; decoding on {measured['cores']} cores"
    for task, method in (("train", "ours"), ("predict", "predicting")):
        rates[task] = {key: of[method]["median"] for key, of in measured["rates"].items()}
    return rates | {"decode": measured["decoding"]["all"]["median"]}


def needs(
    images: int, rates: Mapping, architecture: str, image_size: int, price_per_hour: float = 0.0
) -> dict[str, float]:
    """What a dataset of so many images needs: gigabytes, hours, and the price of an epoch.

    `rates` as `rates_of` gives them. An epoch trains on the training part and predicts
    the validation part; `resamples_gb` are the bootstrap's weights of the test part.
    """
    epoch = images * TRAIN / rates["train"][architecture] / 3600
    epoch += images * VALIDATION / rates["predict"][architecture] / 3600
    return {
        "jpeg_gb": images * HAM10000_JPEG_BYTES / 1e9,
        "pixels_gb": images * image_size**2 * 3 / 1e9,
        "resamples_gb": images * TEST * RESAMPLES * 8 / 1e9,
        "decode_hours": images / rates["decode"] / 3600,
        "epoch_hours": epoch,
        "epoch_price": epoch * price_per_hour,
    }


def table(rates: Mapping, architecture: str, image_size: int) -> str:
    """The table of docs/cloud.md in Markdown: one row a need, one column a dataset."""
    price = rates["price_per_hour"]
    columns = [needs(images, rates, architecture, image_size, price) for images in SIZES.values()]
    rows = (
        ("JPEG files, GB", "jpeg_gb"),
        (f"pixels at {image_size} px, GB", "pixels_gb"),
        ("weights of the bootstrap, GB", "resamples_gb"),
        ("decoding once, hours", "decode_hours"),
        (f"an epoch of {architecture}, hours", "epoch_hours"),
        (f"an epoch of {architecture}, US dollars", "epoch_price"),
    )
    lines = [["", *(f"{name}: {images:,}" for name, images in SIZES.items())]]
    lines += [["---"] + ["---:"] * len(columns)]
    lines += [[head, *(_number(column[name]) for column in columns)] for head, name in rows]
    basis = (
        f"Images a second, measured on {rates['date']} ({rates['machine']}): decoding "
        f"{rates['decode']:.0f}, training {rates['train'][architecture]:.1f}, predicting "
        f"{rates['predict'][architecture]:.1f}. An hour of such a machine: {price} US dollars."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{basis}\n"


def _number(value: float) -> str:
    """Two significant digits, without an exponent."""
    digits = float(f"{value:.2g}")
    return f"{digits:,.0f}" if digits >= 10 else f"{digits:g}"


def page(text: str, rates: Mapping) -> str:
    """The page with its calculated part made again."""
    return between(text, BEGIN, table(rates, "resnet50", rates["image_size"]))


def between(text: str, begin: str, made: str) -> str:
    """The text with what stands between the marker `begin` and the next `END` made again."""
    head, _, rest = text.partition(begin)
    return head + begin + made + END + rest.partition(END)[2]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_json(RATES, read_json(RATES) | rates_of(read_json(name)))
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), read_json(RATES)))
