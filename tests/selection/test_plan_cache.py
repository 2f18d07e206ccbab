"""Compiled plans that outlive a process: found again, and built again where they make no sense."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs

import columba
from columba.codegen.cpp import emit, emit_parts
from columba.driver import compile_program
from columba.ir.plan.kernels import Gemm, GemmReduce
from columba.ir.program.program import Program
from columba.ir.types import DType
from columba.passes.recipes import Recipe
from columba.runtime import build, cache, fingerprint
from columba.selection import plan_cache, variants
from columba.selection.variants import Variants, recipes_for

pytestmark = pytest.mark.unoptimized

G = square_graphs()["random"]
X = torch.randn(G.num_nodes, 4)
LAYERS = {
    "rgcn": lambda: columba.nn.RGCNConv(4, 6, RELATIONS),
    "rgat": lambda: columba.nn.RGATConv(4, 6, RELATIONS, heads=3),
    "hgt": lambda: columba.nn.HGTConv(4, 6, NODE_TYPES, RELATIONS, heads=3),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))


def program_of(name: str) -> tuple[Program, tuple[str, ...]]:
    compiled = columba.compile(LAYERS[name](), backend="torch")
    specialization, bound = type(compiled).forward.specialize(compiled, X, G)
    wrt = [i.name for i, x in zip(specialization.trace.program.inputs, bound.inputs, strict=True) if x.requires_grad]
    return specialization.trace.program, tuple(wrt)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("gradients", [False, True])
def test_what_is_read_back_is_what_was_compiled(name: str, gradients: bool) -> None:
    program, wrt = program_of(name)
    wrt = wrt if gradients else ()
    for recipe_name, recipe in recipes_for({}).items():
        compiled = compile_program(program, wrt, recipe)
        texts = json.loads(json.dumps(plan_cache.to_texts({recipe_name: compiled})))[recipe_name]
        found = plan_cache.from_texts(program.name, texts)
        wanted = compiled.planned
        assert (found.name, found.results, found.places) == (wanted.name, wanted.results, wanted.places)
        assert (found.sources, found.gradients) == (wanted.sources, wanted.gradients)
        assert list(map(str, found.plans)) == list(map(str, wanted.plans))
        for a, b in zip(found.plans, wanted.plans, strict=True):
            assert emit([a], DType.I32) == emit([b], DType.I32)


@pytest.mark.parametrize("name", LAYERS)
def test_every_kernel_stands_in_one_part(name: str) -> None:
    for plan in compile_program(*program_of(name)).plans:
        whole, parts = emit([plan], DType.I32), emit_parts(plan, DType.I32)
        assert len(parts) > 1
        kernels = re.findall(r"^static int (\w+)\(void", whole, re.MULTILINE)
        found = [n for part in parts for n in re.findall(r"^__attribute__.* int (\w+)\(.*\{$", part, re.MULTILINE)]
        assert sorted(found) == sorted(kernels)
        assert max(map(len, parts)) < len(whole)
        assert emit_parts(plan, DType.I32) == parts


@pytest.mark.parametrize("name", LAYERS)
def test_products_of_a_kind_share_a_part_unless_it_overflows(name: str) -> None:
    """What all products of a kind need is compiled in each part that has one."""
    for plan in compile_program(*program_of(name)).plans:
        parts = emit_parts(plan, DType.I32)
        for helper, kind in (("cb_gemm<", Gemm), ("cb_outer<", GemmReduce)):
            products = sum(isinstance(k, kind) for k in plan.kernels)
            calls = [len(re.findall(rf"^ +{helper}", part, re.MULTILINE)) for part in parts]
            assert sum(calls) == products
            if name == "hgt" and "backward" in plan.name:  # its products are half of the work, and of two kinds
                assert sorted(calls) == [0, products]


def test_variants_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program, wrt = program_of("rgat")
    recipes = recipes_for({})
    first = Variants(program, wrt, recipes)
    chosen = first.choose(G.counts())
    monkeypatch.setattr(variants, "compile_program", lambda *a: pytest.fail("compiled again"))
    monkeypatch.setattr(Variants, "best", lambda *a: pytest.fail("chosen again"))
    again = Variants(program, wrt, recipes)
    assert again.names() == first.names()
    assert again.choose(G.counts()) == chosen
    assert list(map(str, again.planned(chosen).plans)) == list(map(str, first.planned(chosen).plans))


def test_what_else_plans_follow_from_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    program, wrt = program_of("rgcn")
    recipes = recipes_for({})
    key = plan_cache.key_of(program, wrt, recipes, None)
    assert plan_cache.key_of(program, wrt, recipes_for({}), None) == key
    assert plan_cache.key_of(program, wrt[:1], recipes, None) != key
    assert plan_cache.key_of(program, wrt, recipes_for({"merge_linears": False}), None) != key
    assert plan_cache.key_of(program, wrt, {"given": Recipe()}, None) != key
    monkeypatch.setattr(plan_cache, "fingerprint", lambda: "another version")
    assert plan_cache.key_of(program, wrt, recipes, None) != key


def signed(path: Path, text: str) -> None:
    """An entry whose checksum is right and whose content is wrong."""
    path.write_bytes(text.encode() + cache._trailer(path.name, text.encode()))


@pytest.mark.parametrize("damage", ["cut", "no json", "no plan", "another shape", "no variant"])
def test_damaged_entries_are_compiled_again(damage: str, tmp_path: Path) -> None:
    program, wrt = program_of("rgcn")
    recipes = recipes_for({})
    name = Variants(program, wrt, recipes).choose(G.counts())
    wanted = list(map(str, Variants(program, wrt, recipes).planned(name).plans))
    (path,) = tmp_path.glob("plans-*.json")
    text = path.read_bytes()[: -cache.TRAILER].decode()
    match damage:
        case "cut":
            path.write_text(text[: len(text) // 2])
        case "no json":
            signed(path, text[: len(text) // 2])
        case "no plan":
            signed(path, text.replace("node[", "nod["))
        case "another shape":
            signed(path, json.dumps([1, 2]))
        case "no variant":
            signed(path, "{}")
    for choice in tmp_path.glob("choice-*.json"):
        signed(choice, "{" if damage == "no json" else '"nobody"')
    fresh = Variants(program, wrt, recipes)
    assert fresh.choose(G.counts()) == name
    assert list(map(str, fresh.planned(name).plans)) == wanted


def test_text_that_was_emitted_is_not_emitted_again() -> None:
    sources = (
        'extern "C" int one();',
        'int two(); extern "C" int one() { return two() - 1; }',
        "int two() { return 2; }",
    )
    made = build.build_emitted("a plan", lambda: sources)
    assert made.one() == 1
    assert build.build_emitted("a plan", lambda: pytest.fail("emitted again")) is made
    assert build.build_emitted("another plan", lambda: sources) is made


def test_of_several_sources_the_one_that_is_wrong_is_named() -> None:
    with pytest.raises(build.BuildError, match="wrong"):
        build.build("int right() { return 1; }", "int wrong() { return nothing; }")
    assert not list(cache.cache_dir().glob("*.tmp"))


def test_a_compiler_is_asked_for_its_version_once(tmp_path: Path) -> None:
    compiler, asked = tmp_path / "c++", tmp_path / "asked"

    def install(version: str) -> None:
        compiler.write_text(f"#!/bin/sh\necho asked >> {asked}\necho {version}\n")
        compiler.chmod(0o755)
        build.compiler_version.cache_clear()

    install("one")
    assert build.compiler_version(str(compiler)) == "one"
    build.compiler_version.cache_clear()  # as in another process
    assert build.compiler_version(str(compiler)) == "one"
    assert asked.read_text().split() == ["asked"]
    install("another")
    assert build.compiler_version(str(compiler)) == "another"


def test_the_fingerprint_covers_the_compiler() -> None:
    files = [Path(name).as_posix() for name in fingerprint.source_files()]
    assert files == sorted(set(files))
    for part in (
        "/driver.py",
        "/lowering/kernels.py",
        "/gradient/partition.py",
        "/selection/work.py",
        "/passes/program/sink_lifts.py",
        "/codegen/cpp/prelude.h",
        "/ir/node.py",
        "gemm.cpp.jinja",
    ):
        assert any(name.endswith(part) for name in files), part


def test_the_fingerprint_changes_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pass.py"
    file.write_text("one")
    monkeypatch.setattr(fingerprint, "source_files", lambda: [str(file)])
    before = fingerprint.fingerprint.__wrapped__()
    file.write_text("two")
    assert fingerprint.fingerprint.__wrapped__() != before


def test_stored_variants_are_known() -> None:
    program, wrt = program_of("rgcn")
    recipes = recipes_for({})
    assert not Variants(program, wrt, recipes).is_known
    Variants(program, wrt, recipes).names()
    assert Variants(program, wrt, recipes).is_known
    assert not Variants(program, wrt[:1], recipes).is_known


@pytest.mark.slow
def test_a_process_that_finds_everything_imports_little(tmp_path: Path) -> None:
    """The second process compiles, emits and measures nothing."""
    text = """
import sys, torch, columba

@columba.compile(backend="cpp")
def twice(g, h):
    return g.edges.sum(2.0 * g.edges.src(h))

h = torch.ones(3, 4, requires_grad=True)
out = twice(columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]])), h)
out.sum().backward()
heavy = ("networkx", "jinja2", "torch._dynamo", "sympy")
print(out.sum().item() + h.grad.sum().item(), *(m for m in heavy if m in sys.modules))
"""
    said = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == said[1][0]
    assert {"networkx", "jinja2"} <= set(said[0])
    assert said[1][1:] == []
