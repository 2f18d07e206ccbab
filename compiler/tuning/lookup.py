"""Lookup of tuning records: records found again: what a compiled program does instead of asking the cost model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch

from columba.runtime.escape import plain
from columba.runtime.graphs.graph import Graph
from columba.runtime.logs import logger
from columba.selection.variants import Variants
from columba.tuning.cases import bucket, device_name, program_hash, versions
from columba.tuning.decisions import BadDecision, parse_decision
from columba.tuning.records import Damaged, Records, RecordsError, TuningRecord

log = logger("tuning")


@dataclass
class Recorded:
    """The records of one program, read when they are first asked for."""

    variants: Variants
    backend: str
    records: Records = field(default_factory=Records)
    _by_graph: dict[str, TuningRecord] | None = None
    _names: dict[str, str | None] = field(default_factory=dict)

    def choice(self, graph: Graph) -> str | None:
        """The variant that a record chooses for a graph, by its name among ``variants``; None where there is no record to trust."""
        if self._by_graph is None:
            self._by_graph = self._read(graph.device)
        if not self._by_graph:
            return None
        where = bucket(graph.counts())
        if where not in self._by_graph:
            return None
        if where not in self._names:
            self._names[where] = self._adopt(self._by_graph[where])
        return self._names[where]

    def forget(self) -> None:
        """Reads the records again at the next question."""
        self._by_graph = None
        self._names.clear()

    def _read(self, device: torch.device) -> dict[str, TuningRecord]:
        program, wrt = self.variants.program, ",".join(self.variants.wrt)
        try:
            found = self.records.find(program_hash(program), wrt, device_name(device), self.backend)
        except RecordsError as e:
            _warn(f"columba: {e}; nothing is tuned")
            return {}
        usable = {}
        for record in found:
            if isinstance(record, Damaged):
                _warn(f"columba: the tuning record of {record.what} is ignored: {record.reason}")
            elif record.versions != versions():
                _warn(
                    f"columba: the tuning record of {record.case.name} on graphs of {record.case.graph} is ignored: it was made with "
                    f"{record.versions}; this is {versions()}. Run `columba tune` again."
                )
            else:
                usable[record.case.graph] = record
        return usable

    def _adopt(self, record: TuningRecord) -> str | None:
        """Adds what a record decides to the variants."""
        try:
            decision = parse_decision(record.decision)
            compilation = decision.compile(self.variants.program, tuple(self.variants.wrt))
        except BadDecision as e:
            _warn(f"columba: the tuning record of {record.case.name} on graphs of {record.case.graph} is ignored: {e}")
            return None
        name = f"tuned: {decision.label}"
        origin = (
            f"a tuning record of {record.made}: {record.seconds * 1e3:.3f} ms, {record.default * 1e3:.3f} ms without"
        )
        self.variants.adopt(name, compilation, origin)
        log.info("%s", plain(f"{record.case.name} on graphs of {record.case.graph} runs {name}, by {origin}"))
        return name


def _warn(message: str) -> None:
    warnings.warn(plain(message), RuntimeWarning, stacklevel=2)
