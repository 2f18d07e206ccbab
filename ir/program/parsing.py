"""A parser of the text form of level 1 that gives back an equal program. The form of a field follows from its declared type."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from typing import Any

from columba.ir.program.ops import OPS, Input, Value
from columba.ir.program.program import Program
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, TensorType


class ParseError(ValueError):
    """The text is not a program; the message gives the line."""


_TOKEN = re.compile(
    r"\s*("
    r"[%@][A-Za-z_0-9.]+"  # a value
    r"|-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)(?![A-Za-z_])"  # a number
    r"|[A-Za-z_][A-Za-z_0-9]*"  # a word
    r"|->|[-(){}\[\]:,=])"
)


class Tokens:
    """A cursor over the tokens of a text. ``names`` maps marked names (``@x``) to what they stand for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: dict[str, Any] = {}
        self.next = 0
        self.tokens: list[str] = _TOKEN.findall(text)
        if "".join(self.tokens) != "".join(text.split()):
            self._complain()
        self.tokens.append("")  # the end

    def _complain(self) -> None:
        """Raises the error of the first text that is no token."""
        at = 0
        for match in _TOKEN.finditer(self.text):
            between = self.text[at : match.start()]
            if between.strip():
                break
            at = match.end()
        at += len(self.text[at:]) - len(self.text[at:].lstrip())
        raise self.error(f"unexpected text {self.text[at : at + 20]!r}", at)

    def error(self, message: str, at: int | None = None) -> ParseError:
        if at is None:
            ends = [match.end() for match in _TOKEN.finditer(self.text)]
            at = ends[min(self.next, len(ends) - 1)] if ends else 0
        return ParseError(f"line {self.text.count(chr(10), 0, at) + 1}: {message}")

    def peek(self) -> str:
        return self.tokens[self.next]

    def take(self, *wanted: str) -> str:
        token = self.tokens[self.next]
        if wanted and token not in wanted:
            raise self.error(f"expected {' or '.join(map(repr, wanted))}, found {token!r}")
        if token:
            self.next += 1
        return token


def parse_program(text: str) -> Program:
    """The program that ``text`` describes; :class:`ParseError` if there is none."""
    tokens = Tokens(text)
    program = parse_program_tokens(tokens)
    if tokens.peek():
        raise tokens.error(f"unexpected {tokens.peek()!r} after the program")
    return program


def parse_program_tokens(tokens: Tokens) -> Program:
    """A program that stands among other text."""
    tokens.take("program")
    name = tokens.take()
    values: dict[str, Value] = {}
    inputs = []
    tokens.take("(")
    while tokens.peek() != ")":
        param = tokens.take()
        tokens.take(":")
        values[param] = Input(param[1:], parse_type(tokens))
        inputs.append(values[param])
        if tokens.peek() != ")":
            tokens.take(",")
    tokens.take(")")
    tokens.take("{")
    while tokens.peek() != "return":
        parse_line(tokens, values)
    tokens.take("return")
    results: dict[str, Value] = {}
    while tokens.peek() != "}":
        result = tokens.take()
        tokens.take("=")
        results[result] = _lookup(tokens, values)
        if tokens.peek() != "}":
            tokens.take(",")
    tokens.take("}")
    return Program(name, tuple(i for i in inputs if isinstance(i, Input)), tuple(results.values()), tuple(results))


def _lookup(tokens: Tokens, values: dict[str, Value]) -> Value:
    name = tokens.take()
    if name not in values:
        raise tokens.error(f"value {name} is not defined before its use")
    return values[name]


def parse_type(tokens: Tokens) -> TensorType:
    start = tokens.next
    try:
        end = tokens.tokens.index("]", start) + 2
    except ValueError:
        end = start
    text = tuple(tokens.tokens[start:end])
    known = _types.get(text)
    if known is not None:
        tokens.next = end
        return known
    space = _enum(tokens, Space)
    tokens.take("[")
    shape = []
    while tokens.peek() != "]":
        shape.append(int(tokens.take()))
        if tokens.peek() == ",":
            tokens.take()
    tokens.take("]")
    return _types.setdefault(text, TensorType(space, tuple(shape), _enum(tokens, DType)))


_types: dict[tuple[str, ...], TensorType] = {}
"""Types that were parsed before, by their tokens: a plan says few types many times."""


def _enum(tokens: Tokens, kind: Any) -> Any:
    word = tokens.take()
    try:
        return kind(word)
    except ValueError:
        raise tokens.error(f"unknown {kind.__name__.lower()} {word!r}") from None


def parse_line(tokens: Tokens, values: dict[str, Value]) -> None:
    name = tokens.take()
    if not name.startswith("%") or name in values:
        raise tokens.error(f"expected the name of a new value, found {name!r}")
    tokens.take(":")
    declared = parse_type(tokens)
    tokens.take("=")
    op = tokens.take()
    if op not in OPS:
        raise tokens.error(f"unknown operation {op!r}")
    try:
        value = _parse_operation(tokens, OPS[op], values)
    except TypeError as e:
        raise tokens.error(f"{name} = {op}(...): {e}") from e
    if value.type != declared:
        raise tokens.error(f"{name} is declared {declared}, but {op} gives {value.type}")
    values[name] = value


@functools.cache
def _hints(op_name: str) -> dict[str, Any]:
    """The declared types of an operation's fields."""
    return typing.get_type_hints(OPS[op_name])


@functools.cache
def _children(op_name: str) -> tuple[tuple[str, bool], ...]:
    """The fields of an operation that hold operands, each with whether it holds several."""
    children = (f.name for f in dataclasses.fields(OPS[op_name]) if f.metadata.get("child"))
    return tuple((name, typing.get_origin(_hints(op_name)[name]) is tuple) for name in children)


def _parse_operation(tokens: Tokens, op: type[Value], values: dict[str, Value]) -> Value:
    hints = _hints(op.op_name)
    operands: list[Value] = []
    fields: dict[str, Any] = {}
    tokens.take("(")
    while tokens.peek() != ")":
        if tokens.peek().startswith("%"):
            operands.append(_lookup(tokens, values))
        else:
            field = tokens.take()
            if field not in hints:
                raise tokens.error(f"{op.op_name} has no field {field!r}")
            tokens.take("=")
            fields[field] = parse_field(tokens, hints[field])
        if tokens.peek() != ")":
            tokens.take(",")
    tokens.take(")")
    for name, is_tuple in _children(op.op_name):
        if is_tuple:
            fields[name], operands = tuple(operands), []
        elif operands:
            fields[name] = operands.pop(0)
    if operands:
        raise tokens.error(f"{op.op_name}: too many operands")
    return op(**fields)


def parse_field(tokens: Tokens, hint: Any) -> Any:
    args = typing.get_args(hint)
    if type(None) in args:
        if tokens.peek() == "none":
            tokens.take()
            return None
        (hint,) = (a for a in args if a is not type(None))
        args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        items = []
        tokens.take("[")
        while tokens.peek() != "]":
            items.append(parse_field(tokens, args[0]))
            if tokens.peek() != "]":
                tokens.take(",")
        tokens.take("]")
        return tuple(items)
    if hint is IndexMap:
        name = tokens.take()
        tokens.take(":")
        fine = _enum(tokens, Space)
        tokens.take("->")
        return IndexMap(name, fine, _enum(tokens, Space))
    if hint in (Space, DType):
        return _enum(tokens, hint)
    token = tokens.take()
    if token.startswith("@"):
        if token not in tokens.names:
            raise tokens.error(f"{token} is not declared")
        return tokens.names[token]
    if hint is bool:
        return {"true": True, "false": False}[token]
    return hint(token)
