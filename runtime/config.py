"""Settings of the process: ``columba.config``.

Each has an environment variable, which counts at every use, and a value that may be set here instead:

>>> import columba
>>> columba.config.self_check
'1'
>>> with columba.config.patch(self_check="0", cache_dir="/tmp/kernels"):
...     columba.config.self_check, str(columba.config.cache_dir)
('0', '/tmp/kernels')
>>> columba.config.self_check
'1'
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        variable: the environment variable that says it where it is not set in the process.
        parse: from what the variable says, and from what is set, to the value; ValueError where that is nothing.
        default: what counts where neither says anything, as it would be written.
        about: what it does.
    """

    variable: str
    parse: Callable[[str], Any]
    default: str
    about: str


def _switch(text: str) -> bool:
    return text not in ("", "0", "False")


SELF_CHECKS = ("0", "1", "force")


def _self_check(text: str) -> str:
    if text not in SELF_CHECKS:
        raise ValueError(
            "is not known: 0 runs kernels unchecked, 1 checks those of each program once (the default), force checks them again"
        )
    return text


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ValueError("is no positive number of seconds")
    return found


def _folder(text: str) -> Path:
    if not text:
        import platformdirs  # which is not needed, nor need be there, where the folder is said

        text = platformdirs.user_cache_dir("columba", appauthor=False)
    return Path(os.path.expanduser(text))


SETTINGS = {
    "cache_dir": Setting(
        "COLUMBA_CACHE_DIR",
        _folder,
        "",
        "the folder of kernels, plans and tuning records; empty: `columba` in the user's cache folder",
    ),
    "disable": Setting("COLUMBA_DISABLE", _switch, "0", "whether `columba.compile` gives back what it is given"),
    "progress": Setting(
        "COLUMBA_PROGRESS", _switch, "1", "whether a terminal shows what is compiled where that takes over a second"
    ),
    "self_check": Setting(
        "COLUMBA_SELF_CHECK",
        _self_check,
        "1",
        "whether Triton kernels are checked before they are first used on a GPU: `0`, `1`, or `force`: again in each process",
    ),
    "self_check_timeout": Setting(
        "COLUMBA_SELF_CHECK_TIMEOUT",
        _seconds,
        "300",
        "seconds that one step of that check may take before it counts as hung",
    ),
}
"""By name. ``COLUMBA_LOGS`` is not among them: it is read once, see :mod:`columba.runtime.logs`."""


class Config:
    """The settings, as attributes. Set to None, one is again what its environment variable says."""

    def __init__(self) -> None:
        object.__setattr__(self, "_set", {})

    def __getattr__(self, name: str) -> Any:
        setting = _known(name)
        given = self._set.get(name)
        if given is None:
            given = os.environ.get(setting.variable, "").strip() or setting.default
        return _parsed(name, given)

    def __setattr__(self, name: str, value: Any) -> None:
        _known(name)
        text = None if value is None else str(int(value)) if isinstance(value, bool) else str(value)
        if text is not None:
            _parsed(name, text)
        self._set[name] = text

    def __dir__(self) -> list[str]:
        return [*SETTINGS, "environment", "patch"]

    def __repr__(self) -> str:
        return f"columba.config({', '.join(f'{name}={getattr(self, name)!r}' for name in SETTINGS)})"

    @contextlib.contextmanager
    def patch(self, **values: Any) -> Iterator[None]:
        """Within, or within a function that this decorates, settings have other values, in all threads.

        Raises:
            AttributeError: there is no such setting.
            ValueError: it has no such value.
        """
        before = {name: self._set.get(name) for name in values if _known(name)}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            self._set.update(before)

    def environment(self) -> dict[str, str]:
        """The environment for another process that is to have the same settings."""
        own = {SETTINGS[name].variable: text for name, text in self._set.items() if text is not None}
        return {**os.environ, **own}


def _known(name: str) -> Setting:
    try:
        return SETTINGS[name]
    except KeyError:
        raise AttributeError(f"columba.config has no setting {name!r}; one of {', '.join(SETTINGS)}") from None


def _parsed(name: str, text: str) -> Any:
    try:
        return SETTINGS[name].parse(text)
    except ValueError as e:
        raise ValueError(f"{SETTINGS[name].variable}={text} {e}") from None


config = Config()
