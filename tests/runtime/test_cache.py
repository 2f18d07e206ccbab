"""The kernel cache where folders, files and other processes are not as one hopes: who is trusted, what is done without."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from own_cache import answer, entry, fresh_process, library_name, planted

from columba.cli import main
from columba.runtime import build, cache, cache_folder
from columba.selection import rates
from columba.tuning.records import Records, RecordsError

NOBODY = 65534
KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fresh_process(monkeypatch):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(path))
    return path


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a file look like another user's: it is given to one, or, where that is not allowed, we become one."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)


def never() -> bytes:
    raise AssertionError("made again")


# ------------------------------------------------------------------------------------------------ who is trusted


def test_what_is_made_is_for_this_user_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = folder / "above" / "cache"
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(deep))
    before = os.umask(0)
    try:
        cache.get_or_make(KEY, ".txt", lambda: b"content")
        Records().save([])
    finally:
        os.umask(before)
    assert cache.get_or_make(KEY, ".txt", never) == b"content"
    modes = {p.relative_to(folder).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*")}
    assert modes["above"] == modes["above/cache"] == stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes[f"above/cache/{KEY}.txt"] == modes["above/cache/tuning.v1.sqlite3"] == 0o600
    assert f"above/cache/{KEY}.lock" not in modes
    assert not any(mode & 0o077 for mode in modes.values())


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702, "owner"])
def test_a_folder_that_others_can_write_to(folder: Path, mode: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that somebody planted there is not loaded; kernels are built in memory, and a message says what to do."""
    folder.mkdir()
    name = library_name(answer(1))
    (folder / name).write_bytes(entry(name, planted()))
    if isinstance(mode, int):
        folder.chmod(mode)
        said = f"chmod 700 {folder}"
    else:
        give_away(folder, monkeypatch)
        said = "set COLUMBA_CACHE_DIR to a folder of your own"
    listed = sorted(folder.iterdir())
    with pytest.warns(RuntimeWarning, match=re.escape(said)):
        assert build.build(answer(1)).answer() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert cache.get_or_make(KEY, ".txt", lambda: b"once") == b"once"
        assert cache.get_or_make(KEY, ".txt", never) == b"once"
    assert sorted(folder.iterdir()) == listed
    result = CliRunner().invoke(main, ["cache", "--clear"])
    assert (result.exit_code, "Error" in result.stderr) == (1, True)
    assert said in result.stderr
    with pytest.raises(RecordsError, match=re.escape(said)):
        Records().save([])


@pytest.mark.parametrize("kind", ["owner", "mode", "link", "dangling", "fifo", "device", "folder"])
def test_a_file_that_is_not_ours(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced where it can be, never read, and never waited for."""
    folder.mkdir(mode=0o700)
    name = library_name(answer(2))
    path, elsewhere = folder / name, folder.parent / "elsewhere"
    if kind in ("owner", "mode", "link"):
        (elsewhere if kind == "link" else path).write_bytes(entry(name, planted()))
    match kind:
        case "owner" if os.geteuid():
            checked = cache_folder._check_file
            monkeypatch.setattr(
                cache_folder,
                "_check_file",
                lambda found, *rest: checked(os.stat_result([*found[:4], NOBODY, *found[5:10]]), *rest),
            )
        case "owner":
            os.chown(path, NOBODY, -1)
        case "mode":
            path.chmod(0o666)
        case "link" | "dangling":
            path.symlink_to(elsewhere)
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert build.build(answer(2)).answer() == 2
    assert re.search(f"{re.escape(str(path))}.*(rm|folder of your own)", str(warned[0].message))
    assert len(warned) == (2 if kind == "folder" else 1)  # whose place cannot be taken
    assert elsewhere.exists() == (kind == "link")
    if kind not in ("folder", "owner"):
        assert cache.find(name.removesuffix(".so"), ".so") is not None
        assert stat.S_ISREG(path.lstat().st_mode)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_links_of_our_own_lead_to_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the home folder, or what is in it, stands on another disk; and the folders above may be anybody's."""
    real = folder.parent / "disk"
    real.mkdir(mode=0o777)
    real.chmod(0o777)
    (folder.parent / "home").symlink_to("disk/../disk")
    (real / ".cache").symlink_to(real / "not" / "yet")
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(folder.parent / "home" / ".cache" / "columba"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.get_or_make(KEY, ".txt", lambda: b"content")
        assert cache.get_or_make(KEY, ".txt", never) == b"content"
    assert (real / "not" / "yet" / "columba" / f"{KEY}.txt").is_file()


def test_links_of_others_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = folder.parent / "mine"
    mine.mkdir(mode=0o700)
    folder.symlink_to(mine)
    give_away(folder, monkeypatch)
    with pytest.warns(RuntimeWarning, match="symbolic link that another user made|belongs to another user"):
        assert cache.get_or_make(KEY, ".txt", lambda: b"made") == b"made"
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("change", ["cut", "flipped", "renamed", "no checksum"])
def test_what_is_not_as_it_was_written_is_made_again(folder: Path, change: str) -> None:
    cache.get_or_make(KEY, ".txt", lambda: b"0123456789" * 100)
    path = folder / f"{KEY}.txt"
    content = bytearray(path.read_bytes())
    match change:
        case "cut":
            path.write_bytes(content[:500])
        case "flipped":
            content[3] ^= 1
            path.write_bytes(content)
        case "renamed":  # the content of another entry, with its checksum
            cache.get_or_make(OTHER, ".txt", lambda: b"other")
            (folder / f"{OTHER}.txt").rename(path)
        case "no checksum":
            path.write_bytes(b"0123456789" * 100)
    assert cache.find(KEY, ".txt") is None
    assert cache.get_or_make(KEY, ".txt", lambda: b"new") == b"new"
    assert cache.get_or_make(KEY, ".txt", never) == b"new"


def test_what_is_interrupted_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_make(KEY, ".txt", interrupted)
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_make(KEY, ".txt", lambda: b"half")
    assert list(folder.iterdir()) == []


# ------------------------------------------------------------------------------------------------ what is removed meanwhile


def test_only_our_files_are_removed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    others = ("requirements.txt", "package.json", "tuning.v1.sqlite3", "lib.so", f"{KEY}")
    for name in (*others, f"{KEY}.so.sha256", f"{KEY}.7ab_x1.so.tmp", f"{KEY}.lock"):
        (folder / name).write_text("theirs")
    for key in (KEY, f"plans-{KEY}"):
        cache.get_or_make(key, ".json", lambda: b"{}")
    assert cache.cache_info().entries == 2
    assert cache.clear_cache() == 2
    assert sorted(p.name for p in folder.iterdir()) == sorted(others)


def test_a_folder_that_vanishes_while_it_is_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, removed = os.rename, []

    def remove_first(*args: Any, **kwargs: Any) -> None:
        if len(removed) < 3:
            removed.append(shutil.rmtree(folder))
            if len(removed) == 2:
                raise OSError(errno.ESTALE, "Stale file handle")  # as where another machine removes it
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", remove_first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get_or_make(KEY, ".txt", lambda: shutil.rmtree(folder) or b"content") == b"content"
    assert len(removed) == 3
    assert (folder / f"{KEY}.txt").is_file()
    monkeypatch.setattr(cache, "ATTEMPTS", 2)
    removed.clear()
    with pytest.warns(RuntimeWarning, match="cannot be used"):  # not for ever: then memory must do
        cache.get_or_make(OTHER, ".txt", lambda: b"content")
    assert cache.get_or_make(OTHER, ".txt", never) == b"content"


def _work(seconds: float, seed: int, errors: Any) -> None:
    """Reads and makes entries, until the time is up; says what went wrong."""
    end, n = time.monotonic() + seconds, seed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            while time.monotonic() < end:
                n += 1
                key = f"{n % 7:016x}"
                content = key.encode() * (1 + 1000 * (n % 3))
                found = cache.get_or_make(key, ".txt", lambda content=content: content)
                if set(found) != set(content):
                    raise AssertionError(f"{key}: {found[:40]!r}")
    except BaseException as e:
        errors.put(repr(e))


def _destroy(seconds: float, path: Path, errors: Any) -> None:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            cache.clear_cache()
            time.sleep(0.002)
            shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.002)
    except BaseException as e:
        errors.put(repr(e))


def at_once(jobs: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> list[str]:
    """Runs jobs in processes, and returns what went wrong in them."""
    context = multiprocessing.get_context("fork")  # nothing of PyTorch is run there
    errors = context.SimpleQueue()
    processes = [context.Process(target=job, args=(*args, errors)) for job, args in jobs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    found = [f"exit status {p.exitcode}" for p in processes if p.exitcode]
    while not errors.empty():
        found.append(errors.get())
    return found


def test_processes_that_build_read_and_clear_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ATTEMPTS", 1000)  # that a folder is removed all the time is no reason to warn here
    jobs = [(_work, (1.0, seed)) for seed in range(3)]
    assert at_once([*jobs, (_destroy, (1.0, folder))]) == []


def test_a_lock_that_is_never_released(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds it, but is suspended: it is waited for, not for ever."""
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    folder.mkdir(mode=0o700)
    with cache_folder.opened(folder) as handle, cache_folder.locked(f"{KEY}.lock", handle, 1.0):
        assert cache.get_or_make(KEY, ".txt", lambda: b"made") == b"made"
    assert cache.get_or_make(KEY, ".txt", never) == b"made"


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_what_stands_where_a_lock_should_be(folder: Path, kind: str) -> None:
    folder.mkdir(mode=0o700)
    path, precious = folder / f"{KEY}.lock", folder.parent / "precious"
    precious.write_text("kept")
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(precious)
    assert cache.get_or_make(KEY, ".txt", lambda: b"made") == b"made"
    assert cache.get_or_make(KEY, ".txt", never) == b"made"
    assert precious.read_text() == "kept"


def test_records_that_are_removed_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    records, connect, removed = Records(), sqlite3.connect, []
    records.save([])

    def remove_first(*args: Any, **kwargs: Any) -> Any:
        if len(removed) < 2:
            removed.append(shutil.rmtree(folder))
        return connect(*args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", remove_first)
    records.save([])
    assert records.all() == []
    assert len(removed) == 2


# ------------------------------------------------------------------------------------------------ folders that are none


def bad_paths(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "file").write_text("")
    (tmp_path / "round").symlink_to("round")
    return {
        "file": str(tmp_path / "file"),
        "below a file": str(tmp_path / "file" / "cache"),
        "too long": str(tmp_path / ("x" * 300)),
        "far too long": str(tmp_path) + "/x" * 4000,
        "round": str(tmp_path / "round" / "cache"),
        "device": "/dev/null",
        "nobody's home": "~nobody-of-that-name/cache",
        "proc": "/proc/self/nothing/cache",
    }


@pytest.mark.parametrize(
    "name", ["file", "below a file", "too long", "far too long", "round", "device", "nobody's home", "proc"]
)
def test_bad_paths(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", bad_paths(tmp_path)[name])
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.warns(RuntimeWarning, match="COLUMBA_CACHE_DIR"):
        assert cache.get_or_make(KEY, ".txt", lambda: b"made") == b"made"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert cache.get_or_make(KEY, ".txt", never) == b"made"
        assert cache.find(OTHER, ".txt") is None
        cache.remove(OTHER, ".txt")
    assert Records().all() == []
    with pytest.raises(RecordsError, match="cannot be used"):
        Records().save([])
    assert sorted(tmp_path.iterdir()) == before
    result = CliRunner().invoke(main, ["cache"])
    assert result.exit_code in (0, 1)
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_usual_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given, wanted in (("", "home/.cache/columba"), ("~/mine", "home/mine"), ("here/./it/../that", "here/that")):
            monkeypatch.setenv("COLUMBA_CACHE_DIR", given)
            cache.get_or_make(KEY, ".txt", lambda: b"made")
            assert (tmp_path / wanted / f"{KEY}.txt").is_file()


def _as_nobody(errors: Any) -> None:
    try:
        os.setuid(NOBODY)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            made = [cache.get_or_make(KEY, ".txt", lambda: b"made") for _ in range(2)]
            exists = Records().all()
        said = [str(w.message) for w in warned]
        if made != [b"made", b"made"] or exists or len(said) != 1 or "Permission denied" not in said[0]:
            errors.put(f"{made} {exists} {said}")
    except BaseException as e:
        errors.put(repr(e))


@pytest.mark.parametrize("place", ["cannot be entered", "is read only"])
def test_without_permission(folder: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        folder.mkdir(mode=0o755)
        folder.parent.chmod(0o700 if place == "cannot be entered" else 0o755)
        if place == "is read only":
            for above in folder.parents:
                if above.owner() == "root" and not above.stat().st_mode & 0o001:
                    above.chmod(0o711)
        assert at_once([(_as_nobody, ())]) == []
        return
    folder.mkdir(mode=0o500)
    folder.parent.chmod(0o600 if place == "cannot be entered" else 0o700)
    try:
        with pytest.warns(RuntimeWarning, match="Permission denied"):
            assert cache.get_or_make(KEY, ".txt", lambda: b"made") == b"made"
        assert Records().all() == []
    finally:
        folder.parent.chmod(0o700)


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is still read; what is new stays in memory."""
    cache.get_or_make(KEY, ".txt", lambda: b"old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    assert cache.get_or_make(KEY, ".txt", never) == b"old"
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert cache.get_or_make(OTHER, ".txt", lambda: b"new") == b"new"
    assert cache.get_or_make(OTHER, ".txt", never) == b"new"
    assert [p.name for p in folder.iterdir()] == [f"{KEY}.txt"]


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b'{"products": "many"}', b'{"products": 1.0}', b"[" * 100_000, b"\xff"]
)
def test_rates_that_are_none_are_measured(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "measure_rates", lambda device: rates.TYPICAL_RATES)
    cache.get_or_make(rates.rates_key(), ".json", lambda: content)
    assert rates._looked_up(rates.CPU) == rates.TYPICAL_RATES
    assert rates._looked_up(rates.CPU) == rates.TYPICAL_RATES
    assert cache.find(rates.rates_key(), ".json") is None or b"pointwise" in (
        cache.find(rates.rates_key(), ".json") or b""
    )


# ------------------------------------------------------------------------------------------------ the whole

PROGRAM = """
import sys, torch, columba

size = int(sys.argv[1])
graph = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]]), torch.tensor([0, 1, 0]))
torch.manual_seed(0)
layer = columba.nn.RGCNConv(size, size, 2)
h = torch.ones(3, size, requires_grad=True)
out = columba.compile(layer, backend="cpp")(h, graph)
out.sum().backward()
torch.testing.assert_close(out, layer(h, graph))
print("fine")
"""


@pytest.mark.slow
def test_programs_that_build_and_clear_at_once(folder: Path, tmp_path: Path) -> None:
    """Real processes, real builds, and the command that clears, with the folder removed in between."""
    environment = {**os.environ, "COLUMBA_CACHE_DIR": str(folder)}
    end = time.monotonic() + 60
    failed, rounds = [], 0
    while time.monotonic() < end:
        programs = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PROGRAM, str(3 + rounds % 4)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        while any(p.poll() is None for p in programs):
            cleared = CliRunner().invoke(main, ["cache", "--clear"])
            assert cleared.exit_code == 0, cleared.output
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.01)
        for program in programs:
            out, err = program.communicate()
            if out != "fine\n":
                failed.append(err)
        rounds += 1
    assert failed == []
    assert rounds >= 1
