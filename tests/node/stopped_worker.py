"""A worker of another program that beats for as long as it has its task, and then delivers all the same."""

import http.client
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

BEAT_S = 0.2


class Connection(http.client.HTTPConnection):
    """HTTP over the Unix socket of a data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("localhost")
        self._path = json.loads((folder / "control").read_text())["socket"]

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def ask(self, path: str, **body: object) -> Any:
        """Ask the node, and return what it answers, also when it refuses."""
        self.request("POST", path, json.dumps(body))
        content = self.getresponse().read()
        self.close()  # the node ends a connection that is not used
        return json.loads(content)


def main() -> None:
    """Claim a task and say so; keep it; deliver it late, and print the code of the answer."""
    node = Connection(Path(sys.argv[1]))
    me = f"/v1/agents/{node.ask('/v1/agents', kinds=['draw'])['id']}"
    claim = node.ask(f"{me}/claim?wait=60")
    here = f"{me}/tasks/{claim['task']['id']}"
    node.ask(f"{here}/start", attempt=claim["attempt"])
    _tell("working")
    while node.ask(f"{me}/heartbeat").get("tasks"):
        time.sleep(BEAT_S)
    answer = node.ask(f"{here}/complete", attempt=claim["attempt"], result="late")
    _tell(answer["error"]["code"])


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
