"""The paired design of leakage of a run, with what its reader must know to repeat it.

    python benchmarks/leakage.py RUN ARCHITECTURE FILE --command "melanoma leakage ..."

RUN was made with `melanoma leakage`. FILE (JSON) receives its results over the first `--trainings`
pairs; chapter 08 and docs/findings.md read it.
"""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from melanoma_lib.config import LEAKAGE, Config
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.reporting.leakage import paired_leakage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("architecture")
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--command", default="", help="what made the run, for the record")
    parser.add_argument("--note", default="", help="what a reader of the times should know")
    args = parser.parse_args()
    record = read_json(args.run / args.architecture / "run.json")
    config = Config.from_json(record["config"])
    config = replace(config, output_dir=str(args.run), trainings=args.trainings)
    fractions = [float(folder.name) for folder in (args.run / LEAKAGE).iterdir() if folder.is_dir()]
    write_json(args.output, {
        "date": datetime.now(UTC).date().isoformat(),
        "command": args.command,
        "note": args.note,
        "device": record["device"],
        "versions": versions(),
        "results": paired_leakage(config, args.architecture, fractions),
    })  # fmt: skip


if __name__ == "__main__":
    main()
