"""Functions that tests of nodes register; those for worker processes must stand at the top of a module."""

import os


def square(prompt: str) -> str:
    """Compute in a worker process, and say in which."""
    return f"{int(prompt) ** 2} from {os.getpid()}"
