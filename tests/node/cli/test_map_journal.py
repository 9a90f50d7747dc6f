"""What a map keeps of what it has done."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.cli.map_journal import FOLDER, Journal, forget_journal, journal_name, open_journal
from node.cli.request import Request
from protocol import ErrorCode, Failure, PeertaskError, TaskResult, new_task_id, parse_task_id

REQUEST = Request(to="somebody", fields={"kind": "echo"})
ME = "12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA"


def finish(journal: Journal, line: int) -> TaskResult:
    """Keep a result for a line, and return it."""
    result = TaskResult(new_task_id(), f"result {line}", 3)
    journal.complete(line, result)
    return result


def test_the_same_lines_with_the_same_options_are_the_same_map() -> None:
    """Another line, another order, another option: another map. How long one waits makes no difference."""
    name = journal_name(["a", "b"], REQUEST)
    assert name == journal_name(["a", "b"], Request(to="somebody", fields={"kind": "echo"}, timeout_s=3))
    others = [
        journal_name(["b", "a"], REQUEST),
        journal_name(["ab"], REQUEST),
        journal_name(["a", "b"], Request(to="somebody", fields={"kind": "mock"})),
        journal_name(["a", "b"], Request(to="another", fields={"kind": "echo"})),
    ]
    assert len({name, *others}) == 5


def test_a_map_that_is_opened_again_has_the_results_and_counts_the_failures(tmp_path: Path) -> None:
    """Results are there once, failures are counted, and a new journal is told from one that is resumed."""
    with open_journal(tmp_path, "m") as journal:
        assert not journal.resumed
        result = finish(journal, 1)
        journal.fail(2, Failure.of(ErrorCode.TIMEOUT, "slow"))
        journal.fail(2, Failure.of(ErrorCode.TIMEOUT, "slow again"))
    with open_journal(tmp_path, "m") as journal:
        assert journal.resumed
        assert (journal.results, journal.failures) == ({1: result}, {2: 2})


def test_the_id_of_a_task_stays_until_the_line_has_failed_once_more(tmp_path: Path) -> None:
    """A later map attaches to the task of an earlier one, unless that task has ended without a result."""
    with open_journal(tmp_path, "m") as journal:
        first = journal.task_id(1, ME)
        assert parse_task_id(first) == first == journal.task_id(1, ME)
        assert len({first, journal.task_id(2, ME), journal.task_id(1, "another peer")}) == 3
        journal.fail(1, Failure.of(ErrorCode.CANCELLED, "stopped"))
        assert journal.task_id(1, ME) != first


def test_a_line_that_was_cut_off_by_a_kill_is_asked_for_again(tmp_path: Path) -> None:
    """Half a line says nothing, and does not spoil the next one."""
    with open_journal(tmp_path, "m") as journal:
        finish(journal, 1)
    path = tmp_path / FOLDER / "m.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1][:20])
    with open_journal(tmp_path, "m") as journal:
        assert list(journal.results) == [1]
        finish(journal, 2)
    with open_journal(tmp_path, "m") as journal:
        assert list(journal.results) == [1, 2]


@pytest.mark.parametrize("content", ["", "nonsense\n", '{"journal": "of another version", "version": 2}\n', "[1]\n"])
def test_a_journal_that_is_none_is_begun_anew(tmp_path: Path, content: str) -> None:
    """Whatever lies there, the map can be run."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "m.jsonl").write_text(content)
    with open_journal(tmp_path, "m") as journal:
        assert (journal.resumed, journal.results) == (False, {})
        finish(journal, 1)
    with open_journal(tmp_path, "m") as journal:
        assert list(journal.results) == [1]


def test_a_fresh_map_forgets_what_is_there(tmp_path: Path) -> None:
    """`--fresh` asks for everything."""
    with open_journal(tmp_path, "m") as journal:
        finish(journal, 1)
    with open_journal(tmp_path, "m", fresh=True) as journal:
        assert (journal.resumed, journal.results) == (False, {})


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    """The second is refused, and told where the first keeps its results."""
    with open_journal(tmp_path, "m"), pytest.raises(PeertaskError, match=r"same map.*m\.jsonl") as caught:
        open_journal(tmp_path, "m").__enter__()
    assert caught.value.code is ErrorCode.CONFLICT


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A data folder that is a file, say."""
    (tmp_path / "file").touch()
    with pytest.raises(PeertaskError, match="cannot be written") as caught:
        open_journal(tmp_path / "file", "m").__enter__()
    assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_the_last_journal_takes_its_folder_with_it(tmp_path: Path) -> None:
    """A map that is done leaves nothing behind."""
    for name in ("m", "n"):
        with open_journal(tmp_path, name):
            pass
    forget_journal(tmp_path, "m")
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["n.jsonl"]
    forget_journal(tmp_path, "n")
    assert list(tmp_path.iterdir()) == []
