"""Brings waiting tasks to those who can do them: the loop, and one attempt of many that it runs."""

from node.dispatcher.attempt import PROGRESS_INTERVAL_MS, Attempt
from node.dispatcher.loop import Dispatcher

__all__ = ["PROGRESS_INTERVAL_MS", "Attempt", "Dispatcher"]
