"""Every way in which a command can end has one exit code, and every exit code a meaning."""

from __future__ import annotations

import click
import pytest

from node.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from node.cli.reporting import describe_error, report_error
from protocol import TRAITS, ErrorCode, Failure, Fault, PeertaskError


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_has_an_exit_code_that_is_not_success(code: ErrorCode) -> None:
    """A new error code cannot be forgotten: unknown ones count as failures, and a test of each names this one."""
    assert exit_code_of(code) is not ExitCode.OK
    if TRAITS[code].fault is Fault.REQUESTER:
        assert exit_code_of(code) in {ExitCode.USAGE, ExitCode.REFUSED, ExitCode.NOT_FOUND, ExitCode.FAILED}


def test_an_error_code_of_a_newer_node_counts_as_a_failure() -> None:
    """Codes are append-only, and an old command meets new nodes."""
    assert exit_code_of("SOMETHING_NEW") is ExitCode.FAILED


def test_every_exit_code_has_a_meaning_for_the_reference() -> None:
    """The page of the command line lists all of them."""
    assert list(MEANINGS) == list(ExitCode)


def test_a_failure_of_a_task_is_told_with_its_code_and_its_task() -> None:
    """What --json says about a task that has no result."""
    error = Failure.of(ErrorCode.TIMEOUT, "it took too long").to_error()
    report = describe_error(error, task_id="some-id")
    assert (report.code, report.exit_code, report.task_id) == ("TIMEOUT", ExitCode.TIMEOUT, "some-id")
    assert report.message == "it took too long"


def test_of_several_errors_the_one_that_explains_itself_is_told() -> None:
    """A group that trio makes of the errors of several tasks is no message for people."""
    telling = PeertaskError("the peer is away", code=ErrorCode.PEER_UNREACHABLE, remedy="Start it")
    group = ExceptionGroup("two", [ValueError("x"), ExceptionGroup("one", [telling])])
    assert describe_error(group).message == "the peer is away"
    assert describe_error(ExceptionGroup("one", [ValueError("x")])).code == "INTERNAL"


def test_a_usage_error_points_to_the_help_of_its_command() -> None:
    """The command that was called, not only the program."""
    context = click.Context(click.Command("send"), info_name="peertask send")
    report = describe_error(click.UsageError("Missing argument 'PROMPT'.", ctx=context))
    assert (report.code, report.exit_code) == ("USAGE", ExitCode.USAGE)
    assert report.remedy == "See `peertask send --help`"


def test_a_defect_is_told_as_one_with_a_traceback_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 70, what to do about it, and where it happened when --debug asks."""
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert report_error(caught.value, debug=True) is ExitCode.DEFECT
    told = capsys.readouterr()
    assert told.out == ""
    assert "error: ZeroDivisionError: division by zero" in told.err
    assert "Traceback" in told.err
