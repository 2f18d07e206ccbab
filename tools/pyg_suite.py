"""PyTorch Geometric's own tests, each layer compiled: ``python tools/pyg_suite.py --source <checkout> [-k ...]``.

Needs a checkout of PyG's sources of the installed version (``git clone --branch 2.8.0 https://github.com/pyg-team/pytorch_geometric``).
Its tests are run as they are, once without Columba and once under ``tools/pyg_suite_plugin.py``: each call of a layer or model runs
compiled, and its results, the gradients of inputs and parameters, and buffers are compared with those of the same call uncompiled. Prints
which tests end differently, and of each layer what was compiled, and why not. The exit status is 1 where a test that passes without Columba
fails with it, unless it is of a feature that is refused (``REFUSED`` below, which ``docs/pyg.md`` shows).
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[1]

TESTS = (
    "test/nn/conv",
    "test/nn/test_to_hetero_module.py",
    "test/nn/test_to_hetero_transformer.py",
    "test/nn/test_to_hetero_with_bases_transformer.py",
    "test/nn/models/test_basic_gnn.py",
)

REFUSED: dict[str, str] = {}
"""Tests of features that are refused, by a pattern of their names, with the reason; ``docs/pyg.md`` shows them."""

Report = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of PyG's sources")
    parser.add_argument("-k", default="", help="only tests that match, as pytest's -k")
    parser.add_argument("--backend", default="torch", choices=("torch", "cpp", "triton", "auto"))
    parser.add_argument("--json", type=Path, help="a file for all that was seen")
    parser.add_argument(
        "--against", type=Path, help="what --json wrote before: only that run without Columba is not repeated"
    )
    parser.add_argument("tests", nargs="*", default=[], help=f"patterns of files, instead of {', '.join(TESTS)}")
    args = parser.parse_args(argv)
    check_version(args.source)
    if args.against is None:
        without = run(args.source, "none", args.tests or TESTS, args.k)
    else:
        without = json.loads(args.against.read_text(encoding="utf-8"))["without"]
    found = run(args.source, args.backend, args.tests or TESTS, args.k)
    if args.json is not None:
        args.json.write_text(json.dumps({"without": without, "with": found}, indent=1), encoding="utf-8")
    print(layers(found))
    print()
    text, worse = tests(without, found)
    print(text)
    return 1 if worse else 0


def check_version(source: Path) -> None:
    init = source / "torch_geometric" / "__init__.py"
    if not init.exists():
        sys.exit(f"{source} is no checkout of pytorch_geometric")
    match = re.search(r"^__version__ = '(.*)'", init.read_text(encoding="utf-8"), re.MULTILINE)
    installed = importlib.metadata.version("torch_geometric")
    if match is None or match[1] != installed:
        sys.exit(
            f"{source} is of version {match and match[1]}, installed is {installed}: check out the tag {installed}"
        )


def run(source: Path, backend: str, names: Sequence[str], k: str) -> Report:
    """Runs tests in a process of their own."""
    source = source.resolve()
    with tempfile.TemporaryDirectory() as folder:
        report, settings = Path(folder) / "report.json", Path(folder) / "pytest.ini"
        settings.write_text("[pytest]\n", encoding="utf-8")  # not PyG's own, which wants other plugins
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), f"--rootdir={source}", "-W", "ignore"]
        command += ["-p", "no:cacheprovider", "-p", "pyg_suite_plugin", f"--columba-backend={backend}"]
        command += [f"--columba-report={report}", "-k", k, "--tb=no", "--no-header", "--no-summary", "--durations=15"]
        path = os.pathsep.join([str(CLONE), str(CLONE / "tools"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*command, *(str(path) for name in names for path in sorted(source.glob(name)))],
            cwd=folder,
            env=environment,
        )
        if not report.exists():
            sys.exit(f"pytest ended with {done.returncode}")
        loaded: Report = json.loads(report.read_text(encoding="utf-8"))
        return loaded


# ------------------------------------------------------------------------------------------------ what is printed


def layers(found: Report) -> str:
    """A line for each class: how many calls were compiled, in part, not, or failed, and the most frequent reasons why not."""
    calls: dict[str, list[Any]] = collections.defaultdict(list)
    for call in found["calls"]:
        calls[call["kind"]].append(call)
    outcomes = ("compiled", "in part", "not compiled", "failed")
    lines = [f"{'layer':28}" + "".join(f"{o:>14}" for o in (*outcomes, "compared"))]
    for kind in sorted(calls):
        of_kind = calls[kind]
        counts = [sum(c["outcome"] == o for c in of_kind) for o in outcomes]
        counts.append(sum(c["checked"].startswith("compared") for c in of_kind))
        lines.append(f"{kind:28}" + "".join(f"{n or '':>14}" for n in counts))
        reasons = collections.Counter(shortened(c["why"]) for c in of_kind if c["why"])
        lines += [f"    {n:4} x {why}" for why, n in reasons.most_common(3)]
    total = collections.Counter(c["outcome"] for c in found["calls"])
    lines.append(f"{len(found['calls'])} calls: " + ", ".join(f"{total[o]} {o}" for o in outcomes))
    return "\n".join(lines)


def shortened(why: str) -> str:
    """A reason without the folders of packages."""
    why = re.sub(r"\S*/site-packages/", "", why.replace("\n", " "))
    return why if len(why) <= 240 else f"{why[:237]}..."


def tests(without: Report, found: Report) -> tuple[str, list[str]]:
    """How tests ended, and those that pass without Columba only."""

    def count(report: Report) -> str:
        outcomes = collections.Counter(report["outcomes"].values())
        return ", ".join(f"{outcomes[o]} {o}" for o in ("passed", "failed", "skipped"))

    lines = [f"without Columba: {count(without)}", f"with Columba:    {count(found)}"]
    worse = []
    for test, outcome in found["outcomes"].items():
        if outcome == "passed" or without["outcomes"].get(test) != "passed":
            continue
        reason = next((why for pattern, why in REFUSED.items() if re.search(pattern, test)), None)
        if reason is None:
            worse.append(test)
            lines.append(f"FAILED {test}: {shortened(found['messages'].get(test, outcome))}")
        else:
            lines.append(f"refused {test}: {reason}")
    return "\n".join(lines), worse


if __name__ == "__main__":
    sys.exit(main())
