"""The audit log: what happened to the tasks of a node, and to the node, as a chain that shows every change to it."""
