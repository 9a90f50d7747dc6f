"""The demo: several real nodes on this machine, tasks that flow between all of them, and a picture of it.

`workload` and `tally` decide and count, and know neither processes nor time; `fleet` starts and ends the nodes,
`traffic` has the tasks done, `view` draws.
"""
