"""Tuning records: what was measured on this machine, and what won.

They stand in a SQLite database in the cache folder. A *trial* is one measured candidate, committed when it is measured, so that a run
that is interrupted goes on where it was; a *record* is what won for a case. Each row carries a checksum of all that it says, and a reader
trusts no row without a right one. What the decisions mean is not known here: they are JSON texts.

Several processes may use the database at once. A damaged file is moved aside, with a warning, and a new one is begun. One that others
own or can write is refused, as in :mod:`columba.runtime.cache_folder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from columba.runtime import cache_folder
from columba.runtime.cache import cache_dir

FORMAT = 1
"""Of the database and of exported files; raised when a row says something else than before."""

PATIENCE = 30.0
"""Seconds that a process waits for another one that writes."""

MEASURING = 600.0
"""Seconds that a process waits for another one that measures."""

ATTEMPTS = 5
"""To use a database that others are removing."""


class RecordsError(RuntimeError):
    """The database cannot be used, or a file of records cannot be read; the message says why."""


@dataclass(frozen=True)
class Case:
    """What a record holds for.

    Attributes:
        name: of the program, for people.
        program: the hash of its text.
        gradients: names of the inputs that want gradients, separated by commas.
        graph: the sizes of the graph's spaces, to powers of two.
        dtype: of the results.
        device: what the kernels run on.
        backend: what made them.
    """

    name: str
    program: str
    gradients: str
    graph: str
    dtype: str
    device: str
    backend: str

    @property
    def key(self) -> str:
        return _digest(asdict(self))


@dataclass(frozen=True)
class TuningRecord:
    """What won.

    Attributes:
        versions: what the measurement was made with; other versions make other kernels.
        decision: what to do, as JSON.
        seconds: the time of a run, and ``default``, that of a run without tuning, measured side by side.
        made: when, in ISO 8601.
        complete: whether everything was tried; else the next run goes on.
    """

    case: Case
    versions: str
    decision: str
    seconds: float
    default: float
    made: str
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def checksum(self) -> str:
        return _digest(self.as_dict())


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured beside a reference: the ratio of their times, how sure it is, and the ratio of each kernel."""

    reference: str
    candidate: str
    seconds: float
    ratio: float
    noise: float
    kernels: str  #: JSON

    @property
    def checksum(self) -> str:
        return _digest(asdict(self))


@dataclass(frozen=True)
class Damaged:
    """A row that cannot be trusted, and why."""

    what: str
    reason: str


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_TABLES = """
create table if not exists records (
  case_key text primary key, name text, program text, gradients text, graph text, dtype text, device text, backend text,
  versions text, decision text, seconds real, "default" real, made text, complete integer, checksum text);
create table if not exists trials (
  case_key text, versions text, reference text, candidate text, seconds real, ratio real, noise real, kernels text, checksum text,
  primary key (case_key, versions, reference, candidate));
"""
_CASE = tuple(f.name for f in fields(Case))
_REST = ("versions", "decision", "seconds", "default", "made", "complete")
_TRIAL = tuple(f.name for f in fields(Trial))


def database() -> Path:
    """Where this version's records stand."""
    return cache_dir() / f"tuning.v{FORMAT}.sqlite3"


class Records:
    """The database at ``path``, which is made when it is first written to."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or database()

    @property
    def exists(self) -> bool:
        """Whether there is a database; not where there cannot be one."""
        return os.path.lexists(self.path)

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Keeps other processes that do the same out, as far as that can be had.

        Raises:
            RecordsError: the folder cannot be used.
        """
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(cache_folder.opened(self.path.parent, create=True))
            except OSError as e:
                raise RecordsError(f"the tuning records in {self.path} cannot be used: {e}") from e
            stack.enter_context(cache_folder.locked(f"{self.path.stem}.{what}", folder, MEASURING))
            yield

    # -------------------------------------------------------------------------------------------- records

    def find(self, program: str, gradients: str, device: str, backend: str) -> list[TuningRecord | Damaged]:
        """The records of a program on a device, for graphs of all sizes."""
        if not self.exists:
            return []
        where = "program = ? and gradients = ? and device = ? and backend = ?"
        return self._select(where, (program, gradients, device, backend))

    def all(self) -> list[TuningRecord | Damaged]:
        return self._select("true", ()) if self.exists else []

    def _select(self, where: str, values: tuple[str, ...]) -> list[TuningRecord | Damaged]:
        query = f"select case_key, {_names(_CASE)}, {_names(_REST)}, checksum from records where {where} order by made, case_key"
        return [_record(row) for row in self._run(lambda c: c.execute(query, values).fetchall())]

    def save(self, records: Iterable[TuningRecord]) -> None:
        """Stores records, all or none, in place of older ones for the same cases."""
        rows = [
            (r.case.key, *(getattr(r.case, f) for f in _CASE), *(getattr(r, f) for f in _REST), r.checksum)
            for r in records
        ]
        marks = ", ".join("?" * (len(_CASE) + len(_REST) + 2))
        self._write("insert or replace into records values (" + marks + ")", rows)

    def clear(self) -> int:
        """Removes all records and trials, and says how many records there were."""
        if not self.exists:
            return 0

        def remove(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                (count,) = connection.execute("select count(*) from records").fetchone()
                connection.execute("delete from records")
                connection.execute("delete from trials")
            return int(count)

        return self._run(remove)

    # -------------------------------------------------------------------------------------------- trials

    def trials(self, case: Case, versions: str) -> dict[tuple[str, str], Trial]:
        """What was measured for a case, by reference and candidate. Damaged rows are as if they had not been measured."""
        if not self.exists:
            return {}
        query = f"select {_names(_TRIAL)}, checksum from trials where case_key = ? and versions = ?"
        rows = self._run(lambda c: c.execute(query, (case.key, versions)).fetchall())
        found = [(Trial(*row[:-1]), row[-1]) for row in rows]
        return {(t.reference, t.candidate): t for t, checksum in found if _fits(t, checksum)}

    def save_trials(self, case: Case, versions: str, trials: Iterable[Trial]) -> None:
        rows = [(case.key, versions, *(getattr(t, f) for f in _TRIAL), t.checksum) for t in trials]
        marks = ", ".join("?" * (len(_TRIAL) + 3))
        self._write("insert or replace into trials values (" + marks + ")", rows)

    def forget_trials(self, case: Case) -> None:
        """Removes what was measured for a case, so that it is measured again."""
        if self.exists:
            self._write("delete from trials where case_key = ?", [(case.key,)])

    # -------------------------------------------------------------------------------------------- the file

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(statement, rows)

        self._run(write)

    def _run(self, work: Any) -> Any:
        """What ``work(connection)`` returns; where the file is damaged, on a new one."""
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._on_sound_file(work)
                except (sqlite3.OperationalError, FileNotFoundError) as e:
                    if "locked" in str(e):  # for longer than anybody writes
                        raise
                    time.sleep(0.01)  # others may be removing the file, or those beside it
            return self._on_sound_file(work)
        except (sqlite3.Error, OSError, UnicodeError) as e:
            raise RecordsError(f"the tuning records in {self.path} cannot be used: {e}") from e

    def _on_sound_file(self, work: Any) -> Any:
        try:
            return self._on_connection(work)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as e:
            self._move_aside(e)
            return self._on_connection(work)

    def _on_connection(self, work: Any) -> Any:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(cache_folder.opened(self.path.parent, create=True))
            cache_folder.touch(self.path.name, folder)  # else SQLite makes it, for others, too
            for suffix in ("", "-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    cache_folder.check_file(self.path.name + suffix, folder, self.path.parent, "chmod 600")
            connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            stack.enter_context(contextlib.closing(connection))
            connection.text_factory = lambda text: text.decode(
                errors="backslashreplace"
            )  # no checksum fits what is no text
            connection.execute("pragma trusted_schema = off")
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.executescript(_TABLES)
            return work(connection)

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        """Renames a file that is no database any more. Of several processes that find it, one does."""
        with self.locked("lock"):
            try:
                self._on_connection(lambda c: c.execute("pragma quick_check").fetchall())
                return  # another process has been here
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                number = len(list(self.path.parent.glob(f"{self.path.name}.damaged-*"))) + 1
                aside = self.path.with_name(f"{self.path.name}.damaged-{number}")
                self.path.replace(aside)
                for beside in ("-wal", "-shm"):
                    Path(f"{self.path}{beside}").unlink(missing_ok=True)
        warnings.warn(
            f"columba: the tuning records in {self.path} are damaged ({error}); they were moved to {aside.name}, and new ones begin.",
            RuntimeWarning,
            stacklevel=6,
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; waits its turn before it reads."""
    connection.execute("begin immediate")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _fits(row: TuningRecord | Trial, checksum: object) -> bool:
    try:
        return row.checksum == checksum
    except (TypeError, ValueError):  # it holds bytes, or what JSON has no words for
        return False


def _record(row: tuple[Any, ...]) -> TuningRecord | Damaged:
    case = Case(*row[1 : 1 + len(_CASE)])
    *rest, checksum = row[1 + len(_CASE) :]
    values = dict(zip(_REST, rest, strict=True))
    record = TuningRecord(case=case, **{**values, "complete": bool(values["complete"])})
    if not _fits(record, checksum) or row[0] != case.key:
        return Damaged(f"{case.name} on graphs of {case.graph}", "its checksum does not fit what it says")
    return record


# ------------------------------------------------------------------------------------------------ files to ship with a model

KIND = "columba tuning records"


def to_json(records: Iterable[TuningRecord]) -> str:
    """Records as a text that :func:`from_json` reads."""
    rows = [{**r.as_dict(), "checksum": r.checksum} for r in records]
    return json.dumps({"kind": KIND, "format": FORMAT, "records": rows}, indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> list[TuningRecord]:
    """The records in an exported text.

    Raises:
        RecordsError: it is no such text, or of another format, or one of its records is incomplete or was changed.
    """
    try:
        content = json.loads(text)
    except ValueError as e:
        raise RecordsError(f"not JSON: {e}") from e
    except RecursionError as e:
        raise RecordsError("its lists and objects are nested too deeply") from e
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise RecordsError("no columba tuning records")
    if content.get("format") != FORMAT:
        raise RecordsError(
            f"records of format {content.get('format')!r}; this version of columba reads format {FORMAT}"
        )
    rows = content.get("records")
    if not isinstance(rows, list):
        raise RecordsError("it has no list of records")
    return [_from_row(number, row) for number, row in enumerate(rows, 1)]


def _from_row(number: int, row: Any) -> TuningRecord:
    what = f"record {number}"
    wanted = {"case", *_REST, "checksum"}
    if not isinstance(row, dict) or set(row) != wanted:
        raise RecordsError(f"{what} must have the fields {', '.join(sorted(wanted))}")
    case = row["case"]
    if not isinstance(case, dict) or set(case) != set(_CASE) or not all(isinstance(v, str) for v in case.values()):
        raise RecordsError(f"{what}: its case must have the fields {', '.join(_CASE)}, all strings")
    for name in ("versions", "decision", "made"):
        if not isinstance(row[name], str):
            raise RecordsError(f"{what}: {name} must be a string")
    for name, value in (*case.items(), *row.items()):
        if isinstance(value, str) and not _is_text(value):
            raise RecordsError(f"{what}: {name} has half of a surrogate pair in it, which is no text")
    if not isinstance(row["complete"], bool):
        raise RecordsError(f"{what}: complete must be true or false")
    for name in ("seconds", "default"):
        if not isinstance(row[name], float) or not 0 < row[name] < float("inf"):
            raise RecordsError(f"{what}: {name} must be a positive number")
    record = TuningRecord(case=Case(**case), **{name: row[name] for name in _REST})
    if record.checksum != row["checksum"]:
        raise RecordsError(f"{what} ({record.case.name}): its checksum does not fit what it says")
    return record


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
