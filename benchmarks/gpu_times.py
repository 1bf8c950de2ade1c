"""How long the recipe trains on ordinary GPUs, estimated; writes a table of docs/performance.md.

    python benchmarks/gpu_times.py

Nothing here is measured on these GPUs. A rate of training is a network's on one GPU, times what
another GPU is faster with ResNet-50 (gpu-published.json has the published rates and their sources).
Two estimates start from different rates of the networks: those that timm published of an RTX 3090,
and those that speed.py measured on an H200, which is taken to be as fast as an H100.
"""

from collections.abc import Mapping
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.files import PROJECT, read_json, write_text
from melanoma_lib.data.download import FILES
from melanoma_lib.data.split import HELD_OUT_FRACTION
from melanoma_lib.models.build import get_architecture

FOLDER = Path(__file__).parent
PAGE = PROJECT / "docs" / "performance.md"
BEGIN, END = "<!-- estimated: python benchmarks/gpu_times.py -->\n", "<!-- end of estimates -->"
IMAGES = sum(f.pictures for f in FILES if (f.dataset, f.part) == ("ham10000", "images"))
FORWARD = 1 / 3  # of a training step's arithmetic: the backward pass is twice the forward pass


def relative(published: Mapping) -> dict[str, float]:
    """By GPU, its rate of training ResNet-50 as a multiple of the RTX 3090's, slowest first."""
    series = published["series"]
    found = {name: gpu["resnet50"] / series[gpu["series"]]["reference"]
             for name, gpu in published["gpus"].items()}  # fmt: skip
    for name, gpu in published["derived"].items():
        found[name] = found[gpu["from"]] * gpu["ratio"][0] / gpu["ratio"][1]
    return dict(sorted(found.items(), key=lambda item: item[1]))


def rates(published: Mapping, measured: Mapping) -> dict[str, tuple[float, float]]:
    """By network, its two rates on the RTX 3090 in images a second, both at the recipe's size."""
    size, like = Config.image_size, relative(published)[published["measured"]["like"]]
    return {
        key: (
            rate["images_per_second"] * (rate["image_size"] / size) ** 2,
            measured["rates"][key]["ours"]["median"] / like,
        )
        for key, rate in published["networks"]["rates"].items()
    }


def minutes(rate: float) -> float:
    """Of one training: each epoch trains on the training part and predicts the validation part."""
    images = IMAGES * (1 - 2 * HELD_OUT_FRACTION + HELD_OUT_FRACTION * FORWARD)
    return Config.epochs * images / rate / 60


def table(published: Mapping, measured: Mapping) -> str:
    """One row a GPU: the minutes of each network and of all, by the faster and slower estimate."""
    networks = rates(published, measured)
    heads = ["minutes", "computes in", *(get_architecture(key).display_name for key in networks),
             "all four"]  # fmt: skip
    lines = [heads, ["---", "---"] + ["---:"] * (len(heads) - 2)]
    known = published["gpus"] | published["derived"]
    for name, factor in relative(published).items():
        spans = [sorted(minutes(rate * factor) for rate in pair) for pair in networks.values()]
        spans += [[sum(column) for column in zip(*spans, strict=True)]]
        star = "*" if name in published["derived"] else ""
        lines.append([name + star, known[name]["precision"], *map(_span, spans)])
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{rows}\n{basis(published, networks)}"


def _span(lowest_and_highest: list[float]) -> str:
    low, high = (f"{value:.0f}" for value in lowest_and_highest)
    return low if low == high else f"{low} to {high}"


def basis(published: Mapping, networks: Mapping[str, tuple[float, float]]) -> str:
    """The sources, how the two estimates disagree, and what the starred rows are."""
    errors = [first / second for first, second in networks.values()]
    of = published["networks"]
    lines = [
        f"Rates of the networks: [{of['source']}]({of['url']}) ({of['conditions']}; "
        "EfficientNet-B3 at 288 px, taken as proportional to the pixels), or "
        f"[{published['measured']['file']}](../benchmarks/{published['measured']['file']}). "
        f"The first estimate is {min(errors):.1f} to {max(errors):.1f} times the second rate, by "
        "network.",
        "Rates of the GPUs with ResNet-50: "
        + "; ".join(f"[{s['source']}]({s['url']})" for s in published["series"].values())
        + ".",
        *(f"\\* {name}: {d['how']} ([{d['source']}]({d['url']}))."
          for name, d in published["derived"].items()),
        f"Looked up on {published['looked_up']}.",
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def page(text: str, published: Mapping, measured: Mapping) -> str:
    """The page with its table made again."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table(published, measured) + END + rest.partition(END)[2]


def read() -> tuple[Mapping, Mapping]:
    """What was published, and what was measured."""
    published = read_json(FOLDER / "gpu-published.json")
    return published, read_json(FOLDER / published["measured"]["file"])


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), *read()))
