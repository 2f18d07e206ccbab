"""Writes the generated sections of the documents: what the compiler prints, what the modules say of themselves.

    python docs/generate.py                rewrites the sections
    python docs/generate.py language.md    those of one document
    python docs/generate.py --check        exit status 1 if one is out of date

A section stands between ``<!-- begin NAME -->`` and ``<!-- end -->``; ``SECTIONS`` says what each holds.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import columba
from columba.driver import Compilation
from columba.frontend.decompositions import DECOMPOSITIONS
from columba.frontend.pyg.registry import ALWAYS, LOWERINGS
from columba.frontend.rules import RULES
from columba.ir.plan.kernels import writes
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.pipeline import Pass, Pipeline
from columba.passes.recipes import LEVEL_1, LEVEL_2
from columba.runtime.config import SETTINGS
from columba.runtime.logs import LOGS

DOCS = Path(__file__).parent
ROOT = DOCS.parent
DOCUMENTS = ("architecture.md", "extending.md", "language.md", "pyg.md", "pytorch.md")
SECTION = re.compile(r"(?P<begin><!-- begin (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->\n)", re.DOTALL)
FOLDERS = ("ir", "codegen", "runtime", "compiler")


def code(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


# ------------------------------------------------------------------------------------------------ one layer, stage by stage


@functools.cache
def explanation() -> columba.Explanation:
    sys.path.insert(0, str(DOCS))
    try:
        from layer import example
    finally:
        sys.path.remove(str(DOCS))
    model, *args = example()
    # Pinned, so that the page does not depend on what this machine's rates make the cost model choose.
    pinned = columba.compile(model, passes="-aggregate_first,compact_materialization")
    return columba.explain(pinned, *args)


def compilation() -> Compilation:
    return explanation().compilation


def layer() -> str:
    source = (DOCS / "layer.py").read_text(encoding="utf-8")
    return code("python", source[source.index("class Attention") : source.index("\n\ndef example")])


def passes() -> str:
    """What each level-1 pass does to the number of operations of the traced program."""
    rows = ["| pass | operations | with a row per edge |", "|---|---|---|"]

    def count(program: Program) -> list[int]:
        edges = sum(v.space is Space.EDGE for v in program.body)  # type: ignore[attr-defined]
        return [len(program.body) - len(program.inputs), edges]

    def on_pass(p: Pass[Program], before: Program, after: Program) -> None:
        if after is not before:
            rows.append(f"| `{p.name}` | {' | '.join(map(str, count(after)))} |")

    traced = compilation().traced
    rows.append(f"| (traced) | {' | '.join(map(str, count(traced)))} |")
    Pipeline(LEVEL_1, verify=True, on_pass=on_pass).run(traced)
    return "\n".join(rows) + "\n"


def backward() -> str:
    program = compilation().backward
    assert program is not None
    return code("text", str(program))


def backward_plan() -> str:
    plan = compilation().backward_plan
    assert plan is not None
    return code("text", str(plan))


def kernel() -> str:
    """The C++ of the kernel that writes the layer's result, without the copy of its text form that stands above it."""
    plan = compilation().forward_plan
    kernel = next(k for k in plan.kernels if any(b.name == "out" for b in writes(k)))
    source = explanation().source
    start = source.index(f"static int {plan.name}_{kernel.name}(")
    return code("cpp", source[start : source.index("\n}\n", start) + 2])


# ------------------------------------------------------------------------------------------------ modules and functions


def modules() -> str:
    """A table of all modules, by folder, with the first line of each docstring."""
    parts = []
    for folder in FOLDERS:
        for package, names in _packages(ROOT / folder):
            title = f"`{package.relative_to(ROOT)}/`: {_first_line(package / '__init__.py')}".removesuffix(": ")
            parts.append(f"- {title}")
            parts += [f"  - `{path.name}`: {_first_line(path)}" for path in names]
    return "\n".join(parts) + "\n"


def _packages(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    for init in sorted(root.rglob("__init__.py")):
        paths = sorted(p for p in init.parent.glob("*.py") if not p.name.startswith("__"))
        yield init.parent, paths


def _first_line(path: Path) -> str:
    return _summary(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def _summary(text: str) -> str:
    """The first paragraph of a docstring, in Markdown."""
    line = text.partition("\n\n")[0].replace("\n", " ")
    return re.sub(r"``([^`]*)``", r"`\1`", re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line)).rstrip(".:")


def pipeline() -> str:
    """The passes of both levels in the order in which they run, with the equation that each states."""
    rows = ["| level | pass | what it does |", "|---|---|---|"]
    for level, passes in enumerate((LEVEL_1, LEVEL_2), start=1):
        for p in passes:
            rows.append(f"| {level} | `{p}` | {_summary(inspect.getdoc(type(p)) or '').replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def functions() -> str:
    """The torch functions and methods that have a conversion rule, by the module that converts them."""
    kinds = {
        "Pointwise": ("pointwise", "numbers"),
        "Over feature dimensions": ("features", "normalizations", "selection"),
        "Products": ("contractions",),
        "Shapes": ("shapes", "arrangement"),
    }
    kind_of = {module: kind for kind, modules in kinds.items() for module in modules}
    names: dict[str, list[str]] = {kind: [] for kind in kinds}
    for name in sorted(RULES.keys() - {"detach", "typed_linear"}):
        if not name.startswith("_"):
            names[kind_of[RULES[name].__module__.rpartition(".")[2]]].append(f"`{name}`")
    for name in sorted(DECOMPOSITIONS):
        kind = "Recurrent cells" if name.endswith("_cell") else "Products"
        names.setdefault(kind, []).append(f"`{name}`")
    return (
        "\n\n".join(
            f"*{kind}*: {', '.join(sorted(found, key=lambda name: name.strip(chr(96))))}."
            for kind, found in names.items()
        )
        + "\n"
    )


def settings() -> str:
    """The settings of a process."""
    rows = ["| `columba.config.` | environment | |", "|---|---|---|"]
    rows += [f"| `{name}` | `{one.variable}` | {one.about} |" for name, one in SETTINGS.items()]
    return "\n".join(rows) + "\n"


def logs() -> str:
    """The loggers."""
    return (
        "\n".join(
            ["| logger | what it tells |", "|---|---|", *(f"| `columba.{n}` | {what} |" for n, what in LOGS.items())]
        )
        + "\n"
    )


@contextlib.contextmanager
def _importing(*folders: Path) -> Iterator[None]:
    """Within, what lies in these folders can be imported."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def tools() -> str:
    """What the cases of ``tests/tools`` expect of the tools of PyTorch."""
    with _importing(ROOT, ROOT / "tests"):
        from tests.tools.cases import table

        return table()


def pyg_table(name: str) -> str:
    """What the cases of ``tests/frontend/pyg`` expect of PyG's classes."""
    with _importing(ROOT, ROOT / "tests"):
        from tests.frontend.pyg.coverage import table

        return table(name)


def pyg_lowerings() -> str:
    """The layers that have a lowering."""
    rows = ["| layer | takes | what runs as it was | computes otherwise |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.covers} | {one.refuses} | {one.differs} |" for one in LOWERINGS]
    return "\n".join(rows) + f"\n\nNone of them takes {ALWAYS}.\n"


def pyg_refused() -> str:
    """The tests of PyG's own that fail with Columba."""
    with _importing(ROOT / "tools"):
        from pyg_suite import REFUSED

    if not REFUSED:
        return "No test is known that passes without Columba and fails with it.\n"
    rows = ["| tests that fail with Columba | because |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{pattern}` | {why} |" for pattern, why in REFUSED.items())]) + "\n"


SECTIONS: dict[str, Callable[[], str]] = {
    "layer": layer,
    "traced": lambda: code("text", str(compilation().traced)),
    "passes": passes,
    "forward": lambda: code("text", str(compilation().forward)),
    "backward": backward,
    "forward plan": lambda: code("text", str(compilation().forward_plan)),
    "backward plan": backward_plan,
    "kernel": kernel,
    "modules": modules,
    "functions": functions,
    "pipeline": pipeline,
    "settings": settings,
    "logs": logs,
    "tools": tools,
    "pyg layers": lambda: pyg_table("layers"),
    "pyg others": lambda: pyg_table("others"),
    "pyg lowerings": pyg_lowerings,
    "pyg refused": pyg_refused,
}


def rendered(text: str) -> str:
    """A document with its sections as they should be."""
    return SECTION.sub(lambda m: f"{m['begin']}{SECTIONS[m['name']]()}{m['end']}", text)


def stale(documents: Sequence[str] = DOCUMENTS) -> dict[Path, str]:
    """The documents that are out of date, with what they should be."""
    found = {}
    for name in documents:
        path = DOCS / name
        text = path.read_text(encoding="utf-8")
        if (new := rendered(text)) != text:
            found[path] = new
    return found


def main() -> None:
    named = [name for name in sys.argv[1:] if name != "--check"]
    if unknown := sorted({*named} - {*DOCUMENTS}):
        sys.exit(f"no such document: {', '.join(unknown)}; one of {', '.join(DOCUMENTS)}")
    found = stale(named or DOCUMENTS)
    if "--check" in sys.argv[1:]:
        sys.exit("".join(f"{path} is out of date; run: python docs/generate.py\n" for path in found) or 0)
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
