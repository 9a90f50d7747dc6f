"""What a map has done so far, kept so that an interrupted one asks only for what is missing.

A journal is a file of the data folder, named after what is mapped: the lines of the input, and the options. Its first
line names the version of the format; each further line is how one task ended. It is locked while a map runs, and
removed when every line of the input has a result. Lines are numbered from 1.

The ids of the tasks follow from the journal's name, the peer that asks, the line, and how often that line has failed
before. So a map that is run again attaches to the tasks that its forerunner left with a running node, instead of asking
twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from node.cli.request import Request
from protocol import ErrorCode, Failure, PeertaskError, TaskId, TaskResult

FOLDER: Final = "maps"
_FORMAT: Final = {"journal": "peertask map", "version": 1}
_NAME_CHARS: Final = 32  # 128 bits of a hash: no two maps share a name


def journal_name(lines: Sequence[str], request: Request) -> str:
    """Return the name of what is mapped: the same lines with the same options give the same name."""
    options = json.dumps([request.to, request.fields], sort_keys=True)
    content = hashlib.sha256(options.encode())
    for line in lines:
        content.update(b"\n" + line.encode())
    return content.hexdigest()[:_NAME_CHARS]


@dataclass(slots=True)
class Journal:
    """The endings of the tasks of one map.

    Attributes:
        name: what is mapped, as `journal_name` has it.
        results: what is there already, by the number of the line.
        failures: how often each line has failed, by its number.
        resumed: whether an earlier map has begun it.
    """

    name: str
    _file: TextIO
    results: dict[int, TaskResult] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    resumed: bool = False

    def task_id(self, line: int, peer_id: str) -> TaskId:
        """Return the id of the task for a line: the same one until the line has failed once more."""
        seed = f"{self.name} {peer_id} {line} {self.failures.get(line, 0)}"
        return TaskId(str(uuid.UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4)))

    def complete(self, line: int, result: TaskResult) -> None:
        """Keep a result; it is there for a later map also when this process is killed now."""
        self.results[line] = result
        self._write({"line": line, "result": result.to_dict()})

    def fail(self, line: int, failure: Failure) -> None:
        """Keep that a line has failed, so that it is asked for anew."""
        self.failures[line] = self.failures.get(line, 0) + 1
        self._write({"line": line, "failure": failure.to_dict()})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


@contextmanager
def open_journal(folder: Path, name: str, *, fresh: bool = False) -> Iterator[Journal]:
    """Read what an earlier map left in a data folder, and be the only one that goes on with it.

    Args:
        folder: the data folder.
        name: what is mapped.
        fresh: whether to forget what is there.

    Raises:
        PeertaskError: code CONFLICT, when another process runs the same map; INVALID_CONFIG, when the journal cannot be
            written.
    """
    path = folder / FOLDER / f"{name}.jsonl"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise PeertaskError(
            f"the journal of this map cannot be written in {path.parent}: {error.strerror}",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Name a data folder that you may write to with --data",
        ) from error
    with file:
        _lock(file, path)
        if fresh:
            file.truncate(0)
        yield _read(name, file)


def forget_journal(folder: Path, name: str) -> None:
    """Remove a journal, and the folder of journals when that was the last one."""
    path = folder / FOLDER / f"{name}.jsonl"
    path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _lock(file: TextIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise PeertaskError(
            "another process runs the same map, and keeps its journal",
            code=ErrorCode.CONFLICT,
            remedy=f"Wait until it ends; its results so far are in {path}",
        ) from error


def _read(name: str, file: TextIO) -> Journal:
    journal = Journal(name, file)
    file.seek(0)
    text = file.read()
    entries = [entry for line in text.splitlines() if (entry := _entry(line)) is not None]
    if not entries or entries[0] != _FORMAT:
        file.truncate(0)
        file.write(json.dumps(_FORMAT) + "\n")
        file.flush()
        return journal
    journal.resumed = True
    if not text.endswith("\n"):
        file.write("\n")
    for entry in entries[1:]:
        if "result" in entry:
            journal.results[entry["line"]] = TaskResult.from_dict(entry["result"])
        else:
            journal.failures[entry["line"]] = journal.failures.get(entry["line"], 0) + 1
    return journal


def _entry(line: str) -> dict[str, Any] | None:
    """Return what a line says; None for the last one of a process that was killed while it wrote."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
