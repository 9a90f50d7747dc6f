"""`peertask verify` and `peertask audit`: what they say, and how they exit, without a node."""

# covers COORD-5, COORD-8

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from node.app import open_node
from node.audit.chain import GAP, SignedHead, body_of
from node.audit.segments import AUDIT_FOLDER, Segments, segment_files
from node.cli.entry import Manner, run_command
from node.cli.exit_codes import ExitCode
from node.config import NodeConfig
from node.gateways.http.response_models import TaskView
from protocol import TaskRecord
from tests.protocol.samples import ALICE, FULL_TASK, OTHER_ID, PLAIN_TASK, RECEIPT, RESULT, TASK_ID, pending


class Told(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, object]]:
        """Each line of its output."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run commands in this process."""
    return Run(capsys)


class Run:
    """Runs a command."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Told:
        """Return what it told."""
        words = [str(argument) for argument in arguments]
        self.capsys.readouterr()
        code = run_command(words, Manner.of(words))
        return Told(code, *self.capsys.readouterr())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a receipt, its task and its result."""
    (tmp_path / "receipt.json").write_text(RECEIPT.to_json())
    (tmp_path / "task.json").write_text(PLAIN_TASK.to_json())
    (tmp_path / "result.json").write_text(RESULT.to_json())
    return tmp_path


def test_a_receipt_that_fits_is_valid_and_says_what_was_checked(run: Run, files: Path) -> None:
    """Only what was given is checked."""
    told = run("verify", files / "receipt.json")
    assert (told.code, "checked    signature\n" in told.out) == (ExitCode.OK, True)
    assert f"peer {RECEIPT.executor} has signed" in told.out
    told = run("verify", files / "receipt.json", "--task", files / "task.json", "--result", files / "result.json")
    assert (told.code, "checked    signature, task, result\n" in told.out) == (ExitCode.OK, True)


def test_a_task_that_was_shown_is_checked_with_its_result(run: Run, files: Path) -> None:
    """What `show --json` prints has everything that is needed."""
    (files / "shown.json").write_text(shown().model_dump_json())
    told = run("verify", files / "receipt.json", "--task", files / "shown.json", "--by", RECEIPT.executor, "--json")
    assert told.code == ExitCode.OK
    assert told.json == [
        {
            "valid": True,
            "faults": [],
            "checked": ["signature", "executor", "task", "result"],
            "receipt": RECEIPT.to_dict(),
        }
    ]


def shown() -> TaskView:
    """Return the plain task as a node shows it when it is complete."""
    shape = pending().to_dict()
    shape.update(task=PLAIN_TASK.to_dict(), result=RESULT.to_dict(), status="complete")
    return TaskView.of(TaskRecord.from_dict(shape))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--by", ALICE), f"not {ALICE}"),
        (("--task", "other.json"), "another one than this: a field"),
        (("--result", "no.json"), "another one than this: its text"),
    ],
)
def test_what_does_not_fit_is_named_and_the_exit_code_says_so(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], words: str
) -> None:
    """A script need not read the words."""
    monkeypatch.chdir(files)
    (files / "other.json").write_text(FULL_TASK.to_json())
    (files / "no.json").write_text(RESULT.to_json().replace("Mock", "No"))
    told = run("verify", "receipt.json", *options)
    assert (told.code, told.out.count("NOT VALID")) == (ExitCode.FAILED, 1)
    assert words in told.out


def test_a_receipt_comes_from_standard_input_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed one is found out by its signature."""
    text = RECEIPT.to_json().replace('"attempt":2', '"attempt":1')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    told = run("verify", "-", "--json")
    assert (told.code, told.json[0]["valid"]) == (ExitCode.FAILED, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing.json",), "nothing.json cannot be read: No such file or directory\n"),
        (("garbage.toml",), "garbage.toml is not a receipt: it is not JSON, from line 2, column 1 on\n"),
        (("binary.json",), "binary.json is not a receipt: it is not JSON\n"),
        (("list.json",), "list.json is not a receipt: it is not a JSON object\n"),
        (("task.json",), "task.json is not a receipt: field executor is missing\n"),
        (("receipt.json", "--task", "receipt.json"), "receipt.json is not a task: field id is missing\n"),
        (("receipt.json", "--result", "garbage.toml"), "garbage.toml is not a result: it is not JSON, from line 2"),
        (("receipt.json", "--result", "task.json"), "task.json is not a result: it is a task that has no result\n"),
        (("receipt.json", "--result", "receipt.json"), "receipt.json is not a result: field result is missing\n"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    """The error says which file, and where the right one comes from."""
    monkeypatch.chdir(files)
    (files / "garbage.toml").write_text("\nsignature = []")
    (files / "binary.json").write_bytes(b"{\xff")
    (files / "list.json").write_text("[]")
    told = run("verify", *arguments)
    assert (told.code, words in told.err) == (ExitCode.USAGE, True)
    printed = "--json" if len(arguments) > 1 else "--receipt --json"
    assert f"what `peertask show TASK {printed}` has printed" in told.err.splitlines()[1]


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """The data folder of a node that has kept a log of one task."""
    async with open_node(NodeConfig(data=tmp_path / "data", listen=(), audit=True), control=False) as node:
        await node.submit("hello", kind="echo", id=TASK_ID)
    return tmp_path / "data"


async def test_a_log_is_shown_in_words_and_as_it_is(run: Run, data: Path) -> None:
    """The last entries, or all about a task."""
    told = run("audit", "--data", data)
    assert [line.split()[2] for line in told.out.splitlines()] == [
        *("NodeStarted", "Submitted", "Claimed", "Started", "Completed", "NodeStopped", "Sealed")
    ]
    one = run("audit", TASK_ID, "--data", data, "--json").json
    assert [entry["fact"] for entry in one] == ["Submitted", "Claimed", "Started", "Completed"]
    assert [entry["n"] for entry in run("audit", TASK_ID, "--last", 1, "--data", data, "--json").json] == [5]
    assert run("audit", OTHER_ID, "--data", data).out == ""


async def test_a_log_that_is_whole_is_valid(run: Run, data: Path) -> None:
    """The head that it prints can be noted, and asked for later."""
    told = run("audit", "--verify", "--data", data, "--json")
    (report,) = told.json
    assert (told.code, report["valid"], report["entries"], report["sealed"]) == (ExitCode.OK, True, 7, 7)
    told = run("audit", "--verify", "--data", data)
    assert (told.code, "sealed     up to entry 7" in told.out) == (ExitCode.OK, True)
    noted = next(line.split()[1] for line in told.out.splitlines() if line.startswith("head"))
    assert run("audit", "--verify", "--data", data, "--head", noted).code == ExitCode.OK
    told = run("audit", "--verify", "--data", data, "--head", f"5:{'0' * 64}", "--json")
    assert (told.code, len(told.json[0]["faults"])) == (ExitCode.FAILED, 1)  # type: ignore[arg-type]


async def test_a_log_that_was_changed_is_not(run: Run, data: Path) -> None:
    """The file, the line and what to do stand in the report; somebody else's signature is a fault too."""
    file = segment_files(data / AUDIT_FOLDER)[0]
    file.write_bytes(file.read_bytes().replace(b'"kind":"echo"', b'"kind":"mock"') + b'{"n":8')
    told = run("audit", "--verify", "--data", data)
    assert told.code == ExitCode.FAILED
    assert "NOT VALID  audit-000001.jsonl, line 3: it does not follow from entry 2" in told.out
    assert "torn       the last line has no end" in told.out
    assert "signed by" in run("audit", "--verify", "--data", data, "--by", ALICE).out
    file.write_bytes(b"broken\n")
    assert run("audit", "--data", data).out == "audit-000001.jsonl, line 1 is no entry; see --verify\n"


async def test_a_copy_without_a_key_is_checked_by_whoever_signed(run: Run, data: Path) -> None:
    """An auditor has the log, and not the node's secrets; a gap and a receipt are told in words."""
    (data / "identity.key").unlink()
    assert run("audit", "--verify", "--data", data).code == ExitCode.OK
    segments = Segments(data / AUDIT_FOLDER, keep_bytes=1_000_000)
    head = segments.open().head
    gap, head = head.link(5, body_of(GAP, {"missed": 3, "since": 4}))
    taken, head = head.link(6, body_of("ReceiptTaken", {"receipt": RECEIPT.to_dict()}))
    segments.append(gap + taken, SignedHead(head, ALICE, ""))
    segments.close()
    told = run("audit", "--verify", "--data", data)
    assert "the node says that it could not write 3 entries" in told.out
    assert f"receipt={RECEIPT.signature[:8]}…" in run("audit", "--data", data).out


async def test_a_log_that_cannot_be_read_is_told(run: Run, data: Path) -> None:
    """It is no defect of the program, and no fault of the log."""
    (data / AUDIT_FOLDER / "audit-000002.jsonl").mkdir()
    told = run("audit", "--verify", "--data", data)
    assert (told.code, "cannot be read: Is a directory" in told.err) == (ExitCode.FAILED, True)


def test_a_folder_without_a_log_and_a_wrong_head_are_told(run: Run, tmp_path: Path) -> None:
    """The error says who keeps one."""
    told = run("audit", "--data", tmp_path)
    assert (told.code, "--no-audit" in told.err) == (ExitCode.NOT_FOUND, True)
    (tmp_path / AUDIT_FOLDER).mkdir()
    (tmp_path / AUDIT_FOLDER / "audit-000001.jsonl").touch()
    assert run("audit", "--verify", "--head", "x", "--data", tmp_path).code == ExitCode.USAGE
