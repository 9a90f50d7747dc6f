"""What carries tasks out: one module for each kind of executor.

Nothing is imported here, so that a worker process, which needs a part of this package only, starts quickly.
"""
