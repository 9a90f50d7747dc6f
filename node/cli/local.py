"""Asks the node that runs in the data folder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from node.cli.exit_codes import ExitCode
from node.cli.options import Invocation
from node.cli.running import run
from node.cli.settings import data_folder
from node.gateways.http.client import ControlClient


def ask_local_node(call: Invocation, question: Callable[[ControlClient], Awaitable[ExitCode]]) -> ExitCode:
    """Run the part of a command that needs a running node, and return its exit code.

    Raises:
        PeertaskError: code NODE_UNAVAILABLE, when no node runs in the data folder.
    """

    async def work() -> ExitCode:
        return await question(ControlClient(data_folder(call)))

    return run(work)
