"""Disks that are full, or cannot be written any more: real ones, small, in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.stores.files import FilesStore, saving
from node.testing import make_task
from protocol import ErrorCode, PeertaskError
from tests.node.stores.task_files import ignore, loaded, path_of, running, until_failing
from tests.node.stores.task_lives import begun, finished

pytestmark = pytest.mark.root

# Room for a few tasks of `make_task`, and not for one with a prompt of this size.
DISK_BYTES = 256 * 1024


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of 256 KiB in the place of a folder."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to be root, and mount")
    folder.mkdir(parents=True)
    options = f"size={DISK_BYTES},mode=0700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a small file system."""
    with small_disk(tmp_path / "disk"):
        yield tmp_path / "disk"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again every few milliseconds."""
    monkeypatch.setattr(saving, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(saving, "LONGEST_RETRY_S", 0.05)


async def test_a_full_disk_is_told_and_the_store_goes_on_when_there_is_room(disk: Path) -> None:
    """Nothing that was saved is lost, nothing that was appended is lost, and no draft takes the last room."""
    ballast = disk / "ballast"
    saved, large, small = make_task("saved"), make_task("x" * 100_000), make_task("small")
    store = FilesStore(disk / "data")
    async with running(store) as commits:
        store.append(begun(saved))
        await commits.wait_for(3)
        ballast.write_bytes(b"0" * 180_000)
        store.append(finished(large))
        store.append(begun(small))
        failure = await until_failing(store)
        assert failure.code is ErrorCode.STORE_FAILED
        assert "No space left on device" in failure.message
        assert str(path_of(disk / "data", large)) in failure.message
        assert failure.remedy.startswith("Make room")
        assert len(commits.changes) == 3
        assert [record.id for record in await loaded(store)] == [saved.id, large.id, small.id]
        assert list((disk / "data").rglob("*.tmp")) == []
        ballast.unlink()
        await commits.wait_for(10)
        assert store.failure is None
    assert {record.id for record in await loaded(store)} == {saved.id, large.id, small.id}


async def test_a_disk_that_becomes_read_only_is_told_and_the_store_goes_on_afterwards(tmp_path: Path) -> None:
    """An operator who remounts the disk for writing finds a node that has lost nothing."""
    task, later = make_task(), make_task()
    store = FilesStore(tmp_path)
    # Only the tasks lie on it: the lock file is open for writing, and holds a disk up that is to become read-only.
    with small_disk(tmp_path / "tasks"):
        async with running(store) as commits:
            store.append(begun(task))
            await commits.wait_for(3)
            remount(tmp_path / "tasks", "ro")
            store.append(begun(later))
            failure = await until_failing(store)
            assert "Read-only file system" in failure.message
            assert "can be written" in failure.remedy
            store.forget([task.id])
            remount(tmp_path / "tasks", "rw")
            await commits.wait_for(6)
        assert [record.id for record in await loaded(store)] == [later.id]


async def test_a_read_only_folder_is_refused_at_the_start(disk: Path) -> None:
    """A node that could keep nothing does not start, and says why."""
    remount(disk, "ro")
    with pytest.raises(PeertaskError, match="cannot be opened: Read-only file system") as refused:
        async with FilesStore(disk / "data").running(ignore):
            pytest.fail("it is open")
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert "data folder" in refused.value.remedy


def remount(folder: Path, mode: str) -> None:
    """Let a file system be written, or not."""
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)
