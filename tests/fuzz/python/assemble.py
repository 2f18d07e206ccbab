"""From lines to source text: a function, one with a helper, or a module with parameters; and what it returns."""

from __future__ import annotations

import random
import re

from . import features, patterns, plain, pointwise, products, relational, shapes
from .grow import Grower
from .kinds import Kind, Value

assert all((features, patterns, plain, pointwise, products, relational, shapes)), (
    "imported for the rules that they register"
)

HEADER = "import torch\nimport torch.nn.functional as F\nimport columba\n\n\n"
NAME = re.compile(r"\b[vhpw]\d+(?:_\d+)?\b")
"""Names of values."""


def grow(rng: random.Random, square: bool) -> Grower:
    """A program of some 2 to 20 lines."""
    g = Grower(rng, square)
    for _ in range(rng.randint(1, 2)):
        g.input(Kind(rng.choice(g.spaces), g.shape()))
    for _ in range(rng.choice((1, 2, 3, 4, 6, 8, 10, 14))):
        g.step()
    while not (g.has_graph and g.lines):
        g.by(rng.choice(("lift", "reduction", "propagation")))
    return g


def returned(rng: random.Random, g: Grower) -> str:
    """What is returned: what nobody reads, mostly, and other values and numbers."""
    text = "\n".join(line.split(" = ", 1)[1] for line in g.lines)
    read = set(NAME.findall(text))
    made = [v for v in g.values if not v.is_input]
    unread = [v for v in made if v.name not in read] or made[-1:]
    wanted = [str(v) for v in rng.sample(unread, min(len(unread), rng.choice((1, 1, 2, 3, 4))))]
    if rng.random() < 0.35:
        wanted.append(str(rng.choice(made)))
    if rng.random() < 0.06:
        wanted.append(str(rng.choice(g.inputs)))
    if rng.random() < 0.06:
        wanted.append(rng.choice(("3", "0.5", "g.num_edges", "None", f"{rng.choice(made)}.shape[0]")))
    graph = _of_graph(g)
    if graph and not graph & set(wanted) and rng.random() < 0.98:
        wanted.append(rng.choice(sorted(graph)))
    match rng.choice(("plain", "plain", "dict", "list", "nested")):
        case "dict":
            return "{" + ", ".join(f'"r{n}": {w}' for n, w in enumerate(wanted)) + "}"
        case "list":
            return f"[{', '.join(wanted)}]"
        case "nested" if len(wanted) > 1:
            return f'{wanted[0]}, {{"rest": [{", ".join(wanted[1:])}]}}'
    return ", ".join(wanted)


def _of_graph(g: Grower) -> set[str]:
    """Names whose values depend on the graph."""
    found: set[str] = set()
    for line in g.lines:
        targets, text = line.split(" = ", 1)
        if re.search(r"\bg\.\w+[.(]", text) or found & set(NAME.findall(text)):
            found.update(NAME.findall(targets))
    return found


BETWEEN = (
    "torch.cumsum({}, 0)",
    "{}.flip(0)",
    "torch.roll({}, 1, 0)",
    "{}[torch.arange({}.shape[0])]",
    "torch.cat([{}[1:], {}[:1]])",
)
"""Functions that the language lacks, of a value with rows."""


def divided(rng: random.Random, g: Grower) -> list[str]:
    """The lines, over two graphs with the same edges, with functions between that PyTorch runs."""
    kinds = {v.name: v.kind for v in g.values}
    found = ["g, k = g"]
    for line in g.lines:
        found.append(re.sub(r"\bg\.", "k.", line) if rng.random() < 0.4 else line)
        name = line.split(" = ", 1)[0]
        if rng.random() < 0.15 and name in kinds and kinds[name].has_rows and not kinds[name].is_bool:
            found.append(f"{name} = {rng.choice(BETWEEN).replace('{}', name)}")
    return found


def render(rng: random.Random, g: Grower, result: str, twin: bool = False) -> tuple[str, tuple[str, ...]]:
    """The source text, and the names of the inputs that are parameters of a module (none: the program is a function)."""
    lines = divided(rng, g) if twin else list(g.lines)
    helper = ""
    if len(lines) > 4 and not twin and rng.random() < 0.25:
        helper, lines = _outlined(rng, g, lines, result)
    parameters = tuple(v.name for v in g.inputs if v.is_weight) if rng.random() < 0.25 else ()
    arguments = ["g", *(v.name for v in g.inputs if v.name not in parameters)]
    if not parameters:
        return HEADER + helper + _function("program", arguments, lines, result), ()
    init = [f"self.{name} = torch.nn.Parameter({name})" for name in parameters]
    body = _function("__init__", ["self", *parameters], ["super().__init__()", *init], "")
    lines = [f"{name} = self.{name}" for name in parameters] + lines
    body += "\n" + _function("forward", ["self", *arguments], lines, result)
    indented = "".join(f"    {line}\n" if line else "\n" for line in body.splitlines())
    return f"{HEADER}{helper}class Program(torch.nn.Module):\n{indented}", parameters


def _function(name: str, arguments: list[str], lines: list[str], result: str) -> str:
    body = [*lines, f"return {result}"] if result else lines
    return f"def {name}({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in body)


def _outlined(rng: random.Random, g: Grower, lines: list[str], result: str) -> tuple[str, list[str]]:
    """Some lines moved to a helper function."""
    start = rng.randrange(1, len(lines) - 1)
    stop = rng.randint(start + 1, len(lines) - 1)
    inner, after = lines[start:stop], [*lines[stop:], result]
    defined = [n for line in inner for n in NAME.findall(line.split(" = ", 1)[0])]
    needed = dict.fromkeys(n for line in inner for n in NAME.findall(line.split(" = ", 1)[1]) if n not in defined)
    later = set(NAME.findall("\n".join(line.split(" = ", 1)[-1] for line in after)))
    wanted = [n for n in defined if n in later]
    if not wanted:
        return "", lines
    text = _function("helper", ["g", *needed], inner, ", ".join(wanted))
    call = f"{', '.join(wanted)} = helper({', '.join(['g', *needed])})"
    return text + "\n\n", [*lines[:start], call, *lines[stop:]]


def random_source(
    rng: random.Random, square: bool, twin: bool = False
) -> tuple[str, tuple[Value, ...], tuple[str, ...], list[str]]:
    """Source text, its inputs, those of them that are parameters, and the rules that made it."""
    g = grow(rng, square)
    source, parameters = render(rng, g, returned(rng, g), twin)
    return source, tuple(g.inputs), parameters, g.used
