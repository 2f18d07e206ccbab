"""One line on a terminal that says what is being compiled, while that takes long."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from columba.runtime.config import config

AFTER = 1.0
"""Seconds of silence."""


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Within, after a second, the terminal's last line is ``columba: WHAT``; it is gone afterwards. Nothing where stderr is no terminal."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or not config.progress:
        yield
        return
    shown = threading.Event()

    def show() -> None:
        shown.set()
        stream.write(f"\rcolumba: {what}\x1b[K")
        stream.flush()

    timer = threading.Timer(AFTER, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # what it writes, it has written
        if shown.is_set():
            stream.write("\r\x1b[K")
            stream.flush()
