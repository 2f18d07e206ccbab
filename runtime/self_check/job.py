"""What passes between a process that wants kernels checked and the one that checks them, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from columba.codegen.triton import Schedule, as_json, from_json
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan
from columba.ir.plan.planned import BackwardSource, Planned
from columba.ir.types import DType
from columba.runtime.self_check.graphs import SMALL, Sample


@dataclass(frozen=True)
class Job:
    """The kernels of a program, and where they are to run.

    Attributes:
        name: of the program.
        plans: forward and, if there is one, backward, as text.
        sources: where the inputs of the backward plan come from, as in :class:`Planned`.
        schedules: how kernels run: plan, kernel, and the schedule as JSON has it.
        source: of the kernels, as they will be launched.
        index_dtype: of index arrays.
        device: ``cuda:N``, or ``cpu``, where Triton's interpreter runs.
        gpu: the name of the device there.
        precision: of products of float32, one of :data:`columba.runtime.backends.PRECISIONS`.
        samples: the graphs that they run on.
        large: whether they run on a large graph, too.
    """

    name: str
    plans: tuple[str, ...]
    sources: tuple[BackwardSource, ...]
    schedules: tuple[tuple[str, str, Mapping[str, Any]], ...]
    source: str
    index_dtype: DType
    device: str
    gpu: str
    precision: str
    samples: tuple[Sample, ...]
    large: bool

    @classmethod
    def of(
        cls, planned: Planned, source: str, index_dtype: DType, device: torch.device, gpu: str, precision: str
    ) -> Job:
        """The job for what runs a program."""
        schedules = tuple((plan, kernel, as_json(s)) for (plan, kernel), s in planned.schedules.items())
        large = device.type != "cpu"  # where the interpreter would take minutes
        return cls(
            planned.name,
            tuple(map(str, planned.plans)),
            planned.sources,
            schedules,
            source,
            index_dtype,
            str(device),
            gpu,
            precision,
            SMALL,
            large,
        )

    def parsed_plans(self) -> tuple[Plan, ...]:
        return tuple(map(parse_plan, self.plans))

    def parsed_schedules(self) -> dict[tuple[str, str], Schedule]:
        return {(plan, kernel): from_json(s) for plan, kernel, s in self.schedules}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        found = json.loads(text)
        return cls(
            **found
            | {
                "plans": tuple(found["plans"]),
                "sources": tuple((kind, n) for kind, n in found["sources"]),
                "schedules": tuple((plan, kernel, s) for plan, kernel, s in found["schedules"]),
                "samples": tuple(Sample(**sample) for sample in found["samples"]),
                "index_dtype": DType(found["index_dtype"]),
            }
        )


@dataclass(frozen=True)
class Verdict:
    """What came of a check.

    Attributes:
        passed: whether all kernels gave the right results, and wrote nowhere else.
        kernel: which one did not, or what was under way.
        why: what was wrong.
        kernels: how many ran.
    """

    passed: bool
    kernel: str = ""
    why: str = ""
    kernels: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Verdict:
        """ValueError or TypeError where that is none."""
        found = cls(**json.loads(text))
        if [type(x) for x in (found.passed, found.kernel, found.why, found.kernels)] != [bool, str, str, int]:
            raise TypeError("no verdict")
        return found


@dataclass(frozen=True)
class Message:
    """A line of a report: what is under way (``at``), the verdict, or why there can be none."""

    at: str = ""
    verdict: Verdict | None = None
    cannot: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Message:
        found = json.loads(text)
        verdict = found["verdict"]
        return cls(found["at"], None if verdict is None else Verdict(**verdict), found["cannot"])
