"""Records in files that a person can read, one for each task: ``tasks/{project}/task-{project}-{uuid}.json``.

`document` is what stands in a file, `folder` is where files lie and how they are written, `store` is the `Store` over
them, and `checkpoints` lets a manager save and load single ones.
"""

from node.stores.files.checkpoints import FileCheckpoints
from node.stores.files.folder import TASKS_FOLDER, TaskFolder
from node.stores.files.store import FilesStore

__all__ = ["TASKS_FOLDER", "FileCheckpoints", "FilesStore", "TaskFolder"]
