"""Trains every example with and without Columba: ``python examples/pyg/compare.py [EXAMPLE ...] [-- options of the examples]``.

Prints accuracies and the time of a step side by side.
"""

from __future__ import annotations

import re
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
    names = list(arguments)
    options: list[str] = []
    if "--" in names:
        at = names.index("--")
        names, options = names[:at], names[at + 1 :]
    print(f"{'':14}{'accuracy, PyG':>16}{'with Columba':>16}{'ms a step, PyG':>18}{'with Columba':>16}")
    for example in names or EXAMPLES:
        (theirs, slow), (ours, fast) = run(example, "--eager", *options), run(example, *options)
        print(f"{example:14}{theirs:16.4f}{ours:16.4f}{slow:18.1f}{fast:16.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
