"""Fills Triton's cache ahead of time, in several processes: what a launch on a GPU of that architecture then finds there.

Compiling is half Python, which threads of one process do one after the other. Workers are new processes, not forks: they
neither run the caller's ``__main__`` again nor inherit a GPU that is in use.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Any

from columba.codegen.triton import Launch, Module, Variant
from columba.ir.types import DType
from columba.runtime.subprocesses import python
from columba.runtime.triton.aot import compile_launch, gpu_target
from columba.runtime.triton.functions import load_functions


class PrecompileError(RuntimeError):
    """Triton does not compile a kernel, or a worker process ended."""


class WorkerEnded(PrecompileError):
    """A worker process ended, of itself or by others."""


@dataclass(frozen=True)
class Job:
    """One function of an emitted module, as it is launched on an architecture.

    Attributes:
        source: the module's.
        rounded: whether products are rounded before they are added (:attr:`KernelStep.rounded`).
        precision: of products of float32; what has none is compiled once.
    """

    source: str
    launch: Launch
    variant: Variant
    rounded: bool
    index_dtype: DType
    target: str
    precision: str = "ieee"

    def run(self) -> None:
        """Compiles it in this process, into Triton's cache."""
        function = getattr(load_functions(self.source, interpreted=False), self.launch.function)
        wanted = gpu_target(self.target)
        compile_launch(
            function,
            self.launch,
            self.variant,
            self.index_dtype,
            wanted,
            rounded=self.rounded,
            precision=self.precision,
        )


def jobs_of(
    module: Module, index_dtype: DType, targets: Iterable[str], precisions: Sequence[str] = ("ieee",)
) -> Iterator[Job]:
    """All launches of an emitted module, in all variants that graphs can ask for.

    Raises:
        columba.runtime.triton.aot.UnknownTarget: there is no such architecture.
    """
    for target in targets:
        gpu_target(target)
        for plan in module.plans:
            for step in module.steps[plan.name]:
                for launch in step.launches:
                    for precision in precisions if launch.dot is DType.F32 else ("ieee",):
                        for variant in dict.fromkeys(launch.variants):
                            yield Job(module.source, launch, variant, step.rounded, index_dtype, target, precision)


def precompile(jobs: Sequence[Job], workers: int | None = None, tell: Callable[[int], None] = lambda done: None) -> int:
    """Compiles all jobs, each once, and gives their number.

    Args:
        workers: processes; None: as many as there are cores. 1 compiles in this process.
        tell: is told how many are done, whenever one is.

    Raises:
        PrecompileError: Triton does not compile one of them; the message names it.
    """
    jobs = list(dict.fromkeys(jobs))
    workers = min(len(jobs), workers or os.cpu_count() or 1)
    if workers <= 1:
        for n, job in enumerate(jobs):
            try:
                job.run()
            except Exception as e:  # of any kind: Triton's errors have no common class
                raise PrecompileError(_failed(job, f"{type(e).__name__}: {e}")) from e
            tell(n + 1)
        return len(jobs)
    _Pool(jobs, workers, tell).run()
    return len(jobs)


def _failed(job: Job, why: str) -> str:
    constants = ", ".join(f"{name}={value}" for name, value in job.variant.constants)
    return f"kernel {job.launch.function} ({constants}) does not compile for {job.target}: {why}"


class _Pool:
    """Worker processes that ask for the next job when they are done with one."""

    def __init__(self, jobs: Sequence[Job], workers: int, tell: Callable[[int], None]) -> None:
        self.jobs, self.workers, self.tell = jobs, workers, tell
        self.waiting: SimpleQueue[int] = SimpleQueue()
        for n in range(len(jobs)):
            self.waiting.put(n)
        self.lock = threading.Lock()
        self.done = 0
        self.error: PrecompileError | None = None

    def run(self) -> None:
        with tempfile.TemporaryFile() as f:
            pickle.dump(self.jobs, f)
            f.flush()
            threads = [threading.Thread(target=self._serve, args=(f.fileno(),)) for _ in range(self.workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self.error is not None:
            raise self.error

    def _serve(self, jobs: int) -> None:
        """One worker, as long as there are jobs."""
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                python("columba.runtime.triton.precompile", str(jobs)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                pass_fds=[jobs],
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                while self.error is None:
                    n = self.waiting.get_nowait()
                    kind, why = PrecompileError, self._ask(process.stdin, process.stdout, n)
                    if why is None:
                        kind = WorkerEnded
                        status = process.wait()
                        errors.seek(0)
                        lines = errors.read().strip().splitlines() or ["it said nothing"]
                        why = f"the process that compiles it ended with status {status}: {lines[-1]}"
                    with self.lock:
                        if why:
                            self.error = self.error or kind(_failed(self.jobs[n], why))
                        else:
                            self.done += 1
                            self.tell(self.done)
            except Empty:
                pass
            finally:
                process.stdin.close()

    def _ask(self, to: IO[str], answers: IO[str], n: int) -> str | None:
        """Why job ``n`` failed, empty if it did not; None where nobody answers."""
        try:
            print(n, file=to, flush=True)
        except BrokenPipeError:
            return None
        for line in answers:  # Triton may print lines of its own
            if line.startswith(_ANSWER):
                return str(json.loads(line.removeprefix(_ANSWER)))
        return None


_ANSWER = "columba: "


def _work(jobs: int) -> None:
    """A worker: numbers of jobs come in a line each, and why they failed goes out."""
    # The file is one for all workers, and so is its position: it is read from the start without moving that.
    todo: list[Any] = pickle.loads(os.pread(jobs, os.fstat(jobs).st_size, 0))
    for line in sys.stdin:
        why = ""
        try:
            todo[int(line)].run()
        except Exception as e:  # of any kind, as above
            why = f"{type(e).__name__}: {e}"
        print(_ANSWER + json.dumps(why), flush=True)


if __name__ == "__main__":
    # Under its own name, which pickled jobs refer to.
    from columba.runtime.triton import precompile as _this

    _this._work(int(sys.argv[1]))
