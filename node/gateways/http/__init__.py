"""Tasks and peers over HTTP: what the command line, scripts and dashboards of the same machine use.

`server.serve` runs it, `client.ControlClient` speaks to it, `docs/reference/http.md` describes it. Nothing is imported
here, so that a client does not load a server.
"""
