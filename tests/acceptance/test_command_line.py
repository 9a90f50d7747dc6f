"""The command line itself: quick, complete, and the same for every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from node.cli.group import COMMANDS
from tests.acceptance.processes import Stage

HEAVY = (
    "httpx", "hypercorn", "libp2p", "msgpack", "multiaddr", "node.app", "node.config", "opentelemetry",
    "platformdirs", "prometheus_client", "protocol", "pydantic", "rich", "starlette", "structlog", "trio",
)  # fmt: skip


@pytest.mark.wheel
@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_is_shown_without_loading_anything_heavy(arguments: list[str]) -> None:
    """`--help` answers in a blink, because nothing that takes long to import is imported for it."""
    program = (
        "import sys\n"
        "from node.cli.entry import Manner, run_command\n"
        f"code = run_command({arguments!r}, Manner.of({arguments!r}))\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Examples:" in done.stdout
    assert "Usage: peertask" in done.stdout


@pytest.mark.wheel
def test_the_version_is_that_of_the_distribution(program_stage: Stage) -> None:
    """`peertask --version` prints one line."""
    assert program_stage.run("--version").out.startswith("peertask ")


def test_a_misspelt_command_or_option_is_answered_with_what_was_meant(program_stage: Stage) -> None:
    """A usage error is one message and exit code 2; with --json it is an object."""
    typed = program_stage.run("sned", "x")
    assert (typed.code, "'send'" in typed.err) == (2, True)
    option = program_stage.run("send", "--json", "--prority", "1", "x")
    assert (option.code, option.error()["code"]) == (2, "USAGE")
    assert "--priority" in option.error()["message"]


@pytest.mark.parametrize(
    ("shell", "word", "cursor"), [("bash", "complete", "1"), ("zsh", "compdef", "1"), ("fish", "complete", "se")]
)
def test_a_shell_gets_what_it_needs_to_complete(program_stage: Stage, shell: str, word: str, cursor: str) -> None:
    """The script is for the shell that was named, and the program answers what it asks."""
    script = program_stage.run("completion", shell)
    assert script.code == 0
    assert word in script.out
    asked = {"_PEERTASK_COMPLETE": f"{shell}_complete", "COMP_WORDS": "peertask se", "COMP_CWORD": cursor}
    assert "send" in program_stage.run(settings=asked).out


def test_an_output_that_nobody_reads_any_more_ends_the_command_quietly(program_stage: Stage) -> None:
    """`peertask completion bash | true` must not print a traceback."""
    command = f"{sys.executable} -m node.cli completion bash | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode in {0, 141}, done.stderr) == (True, "")
