"""Trains every example with and without Columba: ``python examples/pyg/compare.py [EXAMPLE ...] [--seeds N] [-- options]``.

Prints accuracies, the means over the seeds, and the time of a step side by side. What dropout drops, and how batches are shuffled, are
other random numbers with Columba than without: a small test set wants several seeds.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = ("gcn", "gat", "rgcn", "rgat", "hgt", "hetero_conv", "to_hetero", "han", "mutag_gin")


def run(example: str, *options: str) -> tuple[float, float]:
    """The accuracy that an example reaches, and the milliseconds of a step."""
    command = [sys.executable, str(HERE / f"{example}.py"), *options]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [re.search(pattern, out) for pattern in (r"test accuracy: (\d\.\d+)", r"(\d+\.\d) ms a step")]
    accuracy, milliseconds = (float(m[1]) for m in found if m is not None)
    return accuracy, milliseconds


def main(arguments: Sequence[str]) -> None:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", default=EXAMPLES)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args(arguments[:at])
    options = arguments[at + 1 :]
    print(f"{'':14}{'accuracy, PyG':>16}{'with Columba':>16}{'ms a step, PyG':>18}{'with Columba':>16}")
    for example in args.examples:
        runs = [
            (run(example, "--eager", "--seed", str(n), *options), run(example, "--seed", str(n), *options))
            for n in range(args.seeds)
        ]
        (theirs, slow), (ours, fast) = (
            map(statistics.mean, zip(*found, strict=True)) for found in zip(*runs, strict=True)
        )
        print(f"{example:14}{theirs:16.4f}{ours:16.4f}{slow:18.1f}{fast:16.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
