"""Settings, what is told through logging, and the line on a terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

import columba
from columba.runtime import cache, logs, progress
from columba.runtime.config import SETTINGS
from columba.runtime.self_check import process, verdicts

pytestmark = pytest.mark.unoptimized


def test_environment_and_values_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    config = columba.config
    assert (config.self_check, config.self_check_timeout, config.disable, config.progress) == ("1", 300.0, False, True)
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("COLUMBA_SELF_CHECK", " force ")
    assert (cache.cache_dir(), verdicts.mode()) == (tmp_path / "a", "force")

    @config.patch(cache_dir=tmp_path / "b", self_check="0", self_check_timeout=2, disable=True)
    def patched() -> None:
        assert (cache.cache_dir(), verdicts.mode(), process.silent_seconds()) == (tmp_path / "b", "0", 2.0)
        assert columba.compile(len) is len
        assert config.environment()["COLUMBA_CACHE_DIR"] == str(tmp_path / "b")
        assert config.environment()["COLUMBA_DISABLE"] == "1"
        with config.patch(disable=False, self_check=None):
            assert (config.disable, config.self_check) == (False, "force")
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            patched()
        assert (cache.cache_dir(), verdicts.mode(), config.disable) == (tmp_path / "a", "force", False)
    assert "self_check='force'" in repr(config)
    assert {*SETTINGS} <= {*dir(config)}


def test_what_is_no_setting_or_no_value_changes_nothing() -> None:
    before = repr(columba.config)
    with pytest.raises(
        AttributeError, match=r"no setting 'cachedir'; one of cache_dir, disable, progress, self_check, "
    ):
        columba.config.cachedir = "/tmp"
    with pytest.raises(AttributeError, match="no setting 'cachedir'"), columba.config.patch(disable=True, cachedir=""):
        pass
    with (
        pytest.raises(ValueError, match="COLUMBA_SELF_CHECK=2 is not known: 0 runs"),
        columba.config.patch(disable=True, self_check="2"),
    ):
        pass
    with pytest.raises(ValueError, match="COLUMBA_SELF_CHECK_TIMEOUT=-1 is no positive number"):
        columba.config.self_check_timeout = -1
    assert repr(columba.config) == before


def test_names_of_logs() -> None:
    assert logs.parse("") == {}
    assert logs.parse(" build ,+traces,-regions,") == {"build": 20, "traces": 10, "regions": 40}
    assert logs.parse("all,-build") == {**dict.fromkeys(logs.LOGS, 20), "build": 40}
    for wrong in ("trace", "++traces", "+-build", "+"):
        with pytest.raises(
            ValueError, match=r"COLUMBA_LOGS=.* is not known; names are build, guards, memory, recompiles, "
        ):
            logs.parse(wrong)


def test_what_is_told_of_a_call(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    @columba.compile(backend="cpp")
    def told(g: columba.Graph, h: Tensor, scale: float) -> Tensor:
        return torch.tanh(g.edges.sum(g.edges.src(h).exp()) * scale)

    g = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]]))
    with caplog.at_level(logging.DEBUG, "columba"), columba.config.patch(cache_dir=tmp_path):
        told(g, torch.ones(3, 2), 2.0)
        told(g, torch.ones(3, 2), 3.0)
    found = [(r.name.removeprefix("columba."), r.getMessage()) for r in caplog.records]
    text = {name: "\n".join(message for n, message in found if n == name) for name in logs.LOGS}
    assert [name for name, message in found if "is traced" in message] == ["traces", "recompiles", "traces"]
    assert "program told(%h: node[2] f32" in text["traces"]
    assert "told has 1 traces, and is traced again because" in text["recompiles"]
    assert "while nothing changes of: torch" in text["guards"]
    assert "the kernels of told are compiled, in " in text["build"]
    assert "told on " in text["memory"]
    assert "24 bytes of results, 0 bytes kept" in text["memory"]
    assert "told: " in text["variants"] or not text["variants"]


@pytest.mark.slow
def test_in_a_process_of_its_own() -> None:
    """Shown where the program has no handlers; an unknown name is an error of the import."""
    code = """
import os, sys, logging
os.environ["COLUMBA_LOGS"] = "+regions"
import columba
logging.getLogger("columba.regions").debug("seen")
logging.getLogger("columba.build").warning("warned")
logging.getLogger("columba.build").info("hidden")
logging.basicConfig(format="own %(message)s", stream=sys.stderr)
logging.getLogger("columba.regions").debug("handled")
from columba.runtime import logs
try:
    logs.configure("nothing")
except ValueError as e:
    print(e)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines() == ["[columba.regions] seen", "[columba.build] warned", "own handled"]
    assert "COLUMBA_LOGS=nothing: 'nothing' is not known" in ran.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.01)
    for stream, switch in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with columba.config.patch(progress=switch), progress.progress("compiling"):
            time.sleep(0.05)
        assert stream.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with contextlib.suppress(KeyError), progress.progress("compiling the kernels of a"):
        while not terminal.getvalue():
            time.sleep(0.01)
        raise KeyError
    assert terminal.getvalue() == "\rcolumba: compiling the kernels of a\x1b[K\r\x1b[K"
    monkeypatch.setattr(progress, "AFTER", 100.0)
    with progress.progress("compiling"):
        pass
    assert terminal.getvalue().count("columba") == 1
