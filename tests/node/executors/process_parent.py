"""A program that lets a worker process compute, and waits: what a test kills, to see what becomes of the worker."""

import sys

import trio

from node.executors.callable import CallableExecutor
from node.testing import FakeExecution
from tests.node.executors.functions import hold_line

if __name__ == "__main__":
    trio.run(CallableExecutor("work", hold_line, run_in="process").execute, FakeExecution(sys.argv[1]))
