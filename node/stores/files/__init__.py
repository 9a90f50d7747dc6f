"""Records in files that a person can read, one for each task: ``tasks/{project}/task-{project}-{uuid}.json``.

`document` is what stands in a file.
"""
