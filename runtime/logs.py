"""What Columba tells of its work, through ``logging``, and ``COLUMBA_LOGS``, which says what of it is shown.

``COLUMBA_LOGS=build,+traces,-regions`` shows what ``columba.build`` tells, all details of ``columba.traces``, and nothing but errors of
``columba.regions``; ``all`` stands for all names. It is read when Columba is imported; programs may configure the loggers as any others.
"""

from __future__ import annotations

import logging
import os

LOGS = {
    "build": "the C++ compiler's runs, and how long they took",
    "guards": "what a trace depends on",
    "memory": "what a program keeps of a call for its gradient, on each graph that it is prepared for",
    "recompiles": "why a function is traced again",
    "regions": "which modules of a model are compiled, and why not the others",
    "self_check": "the check of Triton kernels on a GPU",
    "traces": "which functions are traced, and to what program",
    "tuning": "which of the measured variants run",
    "variants": "which way to compile the cost model chooses for a graph",
}
"""By the name of the logger, after ``columba.``: what it tells."""

VARIABLE = "COLUMBA_LOGS"


def logger(name: str) -> logging.Logger:
    """The logger ``columba.NAME``, which must be one of :data:`LOGS`."""
    if name not in LOGS:
        raise KeyError(name)
    return logging.getLogger(f"columba.{name}")


def parse(text: str) -> dict[str, int]:
    """The level of each logger that is named: INFO, DEBUG after ``+``, ERROR after ``-``.

    >>> parse("build,+traces,-regions") == {"build": logging.INFO, "traces": logging.DEBUG, "regions": logging.ERROR}
    True
    """
    levels: dict[str, int] = {}
    for word in filter(None, (w.strip() for w in text.split(","))):
        name = word.lstrip("+-")
        prefix = word[: len(word) - len(name)]
        if (name not in LOGS and name != "all") or prefix not in ("", "+", "-"):
            raise ValueError(
                f"{VARIABLE}={text}: {word!r} is not known; names are {', '.join(LOGS)} and all, with + for details or - for errors alone"
            )
        level = {"": logging.INFO, "+": logging.DEBUG, "-": logging.ERROR}[prefix]
        levels.update(dict.fromkeys(LOGS, level) if name == "all" else {name: level})
    return levels


class _Unhandled(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the standard error what no handler of the program's own gets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.getLogger().handlers and bool(super().filter(record))


def configure(text: str | None = None) -> None:
    """Sets levels as ``text`` says, or else the environment; ValueError for a name that there is not."""
    levels = parse(os.environ.get(VARIABLE, "") if text is None else text)
    for name, level in levels.items():
        logger(name).setLevel(level)
    above = logging.getLogger("columba")
    if levels and not any(isinstance(h, _Unhandled) for h in above.handlers):
        handler = _Unhandled()
        handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
        above.addHandler(handler)
