"""Who may import whom: every arrow points downwards, and none to the side.

The checker walks over the source and knows nothing of single modules: a folder or module of `node` that is not named in
`LAYER_OF` is one of the siblings. It is tried on a small tree with planted violations before it judges the real one.
"""

# covers CORE-28, CORE-37, COORD-63

import ast
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[1]

FOUNDATION, SIBLING, DISPATCHER, APP, BENCH, TOP = range(6)
LAYER_OF = {
    "interfaces": FOUNDATION,
    "work_service": FOUNDATION,
    "coordination": FOUNDATION,
    "feed": FOUNDATION,
    "config": FOUNDATION,
    "clock": FOUNDATION,
    "telemetry": FOUNDATION,
    "background": FOUNDATION,
    "checkpoints": FOUNDATION,
    "history": FOUNDATION,
    "archive": DISPATCHER,
    "awaited_tasks": FOUNDATION,
    "coordination_service": FOUNDATION,
    "coordinator": DISPATCHER,
    "persona_library": FOUNDATION,
    "personas": FOUNDATION,
    "retention": FOUNDATION,
    "retrying": FOUNDATION,
    "room": FOUNDATION,
    "own_tasks": DISPATCHER,
    "dispatcher": DISPATCHER,
    "storage": DISPATCHER,
    "app": APP,
    "bench": BENCH,
    "cli": TOP,
    "": TOP,  # node/__init__.py, which names what programs use
}
LAYER_NAMES = ("foundation", "sibling", "dispatcher", "app", "bench", "top")

# What is pure can be run anywhere and tested without waiting: no clock, no files, no sockets, no chance.
IMPURE = {
    *(
        "asyncio",
        "datetime",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
    ),
    *(
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
    ),
}
PURE_PACKAGES = {"pydantic", "msgpack", "protocol"}
# New ids are drawn from the system's entropy, as `uuid` does it, but many at a time.
MAY_DRAW_IDS = ("protocol.task", "os")
LIBP2P = {"libp2p", "multiaddr"}
# The bench compares everything with the raw stream, so it opens one by itself.
MAY_USE_LIBP2P = {"net", "testing", "bench"}


class Import(NamedTuple):
    """An import statement's one target, resolved: a module of the tree when it names one, else what it says."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


class Tree:
    """The modules of `node` and `protocol` below a folder."""

    def __init__(self, root: Path) -> None:
        paths = [path for package in ("node", "protocol") for path in sorted((root / package).rglob("*.py"))]
        self.sources = {_module_name(path.relative_to(root)): ast.parse(path.read_text("utf-8")) for path in paths}
        self.packages = {_module_name(path.relative_to(root)) for path in paths if path.name == "__init__.py"}

    def imports(self) -> Iterator[Import]:
        """Yield every import, also those within functions and those for the type checker only."""
        for importer, source in self.sources.items():
            for node in ast.walk(source):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for target in self._targets(importer, node):
                        yield Import(importer, target, node.lineno)

    def _targets(self, importer: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = self._base(importer, node)
        for alias in node.names:
            name = f"{base}.{alias.name}"
            yield name if name in self.sources else base

    def _base(self, importer: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = importer if importer in self.packages else importer.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        return f"{package}.{node.module}" if node.module else package

    def calls(self, function: str) -> Iterator[tuple[str, int]]:
        """Yield where a builtin function is called: the module and the line."""
        for module, source in self.sources.items():
            for node in ast.walk(source):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                    yield module, node.lineno


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _unit(module: str) -> str:
    """Return the folder or module of `node` that a module belongs to; nothing for `node` itself."""
    return module.partition(".")[2].partition(".")[0]


def impure_protocol(tree: Tree) -> Iterator[str]:
    """The protocol is pure: the standard library without its impure parts, pydantic, msgpack, and no open files."""
    allowed = (set(sys.stdlib_module_names) - IMPURE) | PURE_PACKAGES
    for found in tree.imports():
        if (found.importer, found.target) == MAY_DRAW_IDS:
            continue
        if _top(found.importer) == "protocol" and _top(found.target) not in allowed:
            yield f"{found}: protocol is pure"
    for module, line in tree.calls("open"):
        if _top(module) == "protocol":
            yield f"{module}:{line} opens a file: protocol is pure"


def inside_of_protocol(tree: Tree) -> Iterator[str]:
    """What `node` needs of the protocol has a name in `protocol`."""
    for found in tree.imports():
        if _top(found.importer) == "node" and found.target.startswith("protocol."):
            yield f"{found}: import it from protocol"


def own_package_root(tree: Tree) -> Iterator[str]:
    """A module that imports the root of its package imports everything, and soon itself."""
    for found in tree.imports():
        if found.target == _top(found.importer) and found.target in {"node", "protocol"}:
            yield f"{found}: import the module that has the name"


def libp2p_outside_of_net(tree: Tree) -> Iterator[str]:
    """One folder knows libp2p and works around its defects."""
    for found in tree.imports():
        if _top(found.target) in LIBP2P and not (
            _top(found.importer) == "node" and _unit(found.importer) in MAY_USE_LIBP2P
        ):
            yield f"{found}: only node.net may know libp2p"


def wrong_arrows(tree: Tree) -> Iterator[str]:
    """Every layer imports from those below it; siblings do not know each other."""
    for found in tree.imports():
        if _top(found.importer) == _top(found.target) == "node" and found.target != "node":
            reason = _why_not(_unit(found.importer), _unit(found.target))
            if reason:
                yield f"{found}: {reason}"


def _why_not(importer: str, target: str) -> str:
    if importer == target:
        return ""
    if importer == "coordination":
        return "coordination is pure and imports protocol only"
    if target == "testing":  # `peertask simulate` shows people what the tests do
        return "" if importer == "cli" else "only tests use the doubles"
    if importer == "testing":
        return "the doubles do not know the command line" if target == "cli" else ""
    upper, lower = (LAYER_OF.get(unit, SIBLING) for unit in (importer, target))
    if lower < upper or lower == upper == FOUNDATION:
        return ""
    if lower == upper:
        return f"{importer} and {target} are on one layer"
    return f"{importer} ({LAYER_NAMES[upper]}) is below {target} ({LAYER_NAMES[lower]})"


def cycles(tree: Tree) -> Iterator[str]:
    """No module needs itself."""
    graph: dict[str, set[str]] = {}
    for found in tree.imports():
        if found.target in tree.sources and found.target != found.importer:
            graph.setdefault(found.importer, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"a cycle: {' <- '.join(error.args[1])}"


def prints(tree: Tree) -> Iterator[str]:
    """What a node prints is its user interface, and that is one folder."""
    for module, line in tree.calls("print"):
        if not module.startswith("node.cli"):
            yield f"{module}:{line} prints: only node.cli may"


Rule = Callable[[Tree], Iterator[str]]
RULES: tuple[Rule, ...] = (
    impure_protocol,
    inside_of_protocol,
    own_package_root,
    libp2p_outside_of_net,
    wrong_arrows,
    cycles,
    prints,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_every_rule(rule: Rule) -> None:
    """The architecture is what the imports say; a violation is named with its line and its reason."""
    assert list(rule(Tree(PROJECT))) == []


def test_the_checker_sees_the_whole_tree() -> None:
    """A checker that finds nothing because it looks nowhere would be worse than none."""
    tree = Tree(PROJECT)
    assert {"protocol.lifecycle", "node.interfaces", "node.net.host"} <= set(tree.sources)
    assert len(list(tree.imports())) > 100


def planted(root: Path, files: dict[str, str]) -> Tree:
    """Return a small tree that keeps every rule, with the given files put into it."""
    good = {
        "protocol/__init__.py": "from protocol.task import Task",
        "protocol/task.py": "import uuid\nimport re\nimport msgpack\nfrom pydantic import Field\nTask = 1",
        "protocol/frames.py": "from protocol.task import Task",
        "node/__init__.py": "def run():\n    from node.app import open_node",
        "node/interfaces.py": "from protocol import Task",
        "node/feed.py": "from node.interfaces import Clock",
        "node/config.py": "",
        "node/coordination/__init__.py": "",
        "node/coordination/plan.py": "from protocol import Task",
        "node/manager.py": "from node.coordination.plan import plan\nfrom node.feed import Feed",
        "node/net/__init__.py": "",
        "node/net/host.py": "import libp2p.abc\nfrom multiaddr import Multiaddr",
        "node/net/session.py": "from node.net.host import Host\nfrom node.interfaces import Channel",
        "node/stores/memory.py": "from node.interfaces import Store",
        "node/dispatcher.py": "from node.manager import TaskManager",
        "node/app.py": "from node.dispatcher import Dispatcher\nfrom node.net.session import Session",
        "node/testing.py": "import libp2p\nfrom node.app import open_node",
        "node/cli/__init__.py": "from node.cli.commands import send",
        "node/cli/commands/__init__.py": "",
        "node/cli/commands/send.py": "def send():\n    from node.app import open_node\n    print('sent')",
    }
    for name, source in {**good, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), "utf-8")
    return Tree(root)


def violations(tree: Tree) -> list[str]:
    """Return what all rules together find."""
    return [violation for rule in RULES for violation in rule(tree)]


def test_a_good_tree_has_no_violations(tmp_path: Path) -> None:
    """The rules allow what the design allows."""
    assert violations(planted(tmp_path, {})) == []


def test_a_module_that_nobody_has_heard_of_is_a_sibling(tmp_path: Path) -> None:
    """New folders and modules may stand on the foundation, and be used above, without a change here."""
    tree = planted(
        tmp_path,
        {
            "node/pruning.py": "from node.feed import Feed\nfrom protocol import Task",
            "node/gateways/mcp/server.py": "from node.interfaces import TaskService",
            "node/app.py": "import node.pruning\nfrom node.gateways.mcp import server",
        },
    )
    assert violations(tree) == []


PLANTED = {
    "protocol imports trio": ("protocol/task.py", "import trio", "protocol.task:1 imports trio: protocol is pure"),
    "protocol reads the clock": (
        "protocol/task.py",
        "def f():\n    from time import time",
        "protocol.task:2 imports time",
    ),
    "protocol knows files": ("protocol/task.py", "from pathlib import Path", "imports pathlib: protocol is pure"),
    "protocol opens a file": ("protocol/task.py", "x = open('x')", "protocol.task:1 opens a file"),
    "protocol draws lots": ("protocol/task.py", "import random", "imports random: protocol is pure"),
    "protocol imports node": ("protocol/task.py", "from node.feed import Feed", "imports node.feed: protocol is pure"),
    "protocol imports its root": ("protocol/task.py", "from protocol import Frame", "protocol.task:1 imports protocol"),
    "protocol has a cycle": ("protocol/task.py", "from protocol.frames import Frame", "a cycle: "),
    "a name from inside of protocol": ("node/feed.py", "from protocol.task import Task", "import it from protocol"),
    "a module from inside of protocol": ("node/feed.py", "from protocol import task", "imports protocol.task"),
    "an import of a module of protocol": ("node/feed.py", "import protocol.task", "import it from protocol"),
    "libp2p in a store": ("node/stores/memory.py", "import libp2p", "only node.net may know libp2p"),
    "multiaddr in the app": ("node/app.py", "from multiaddr import Multiaddr", "only node.net may know libp2p"),
    "libp2p in protocol": ("protocol/task.py", "import libp2p", "only node.net may know libp2p"),
    "the foundation looks up": (
        "node/feed.py",
        "from node.manager import TaskManager",
        "feed (foundation) is below manager",
    ),
    "coordination looks aside": ("node/coordination/plan.py", "import node.interfaces", "coordination is pure"),
    "a store knows the net": ("node/stores/memory.py", "import node.net.host", "stores and net are on one layer"),
    "the net knows the manager": ("node/net/host.py", "from node import manager", "net and manager are on one layer"),
    "the manager knows the loop": (
        "node/manager.py",
        "import node.dispatcher",
        "manager (sibling) is below dispatcher",
    ),
    "the loop knows the app": ("node/dispatcher.py", "import node.app", "dispatcher (dispatcher) is below app (app)"),
    "the app knows the cli": ("node/app.py", "from node.cli.commands import send", "app (app) is below cli (top)"),
    "a lazy import upwards": ("node/feed.py", "def f():\n    import node.app", "node.feed:2 imports node.app"),
    "a relative import upwards": ("node/net/session.py", "from ..app import open_node", "imports node.app"),
    "a relative import aside": ("node/stores/memory.py", "from ..net import host", "imports node.net.host"),
    "the doubles know the cli": ("node/testing.py", "import node.cli.commands", "do not know the command line"),
    "the doubles at work": ("node/manager.py", "from node.testing import FakeClock", "only tests use the doubles"),
    "a cycle within a folder": ("node/net/host.py", "from node.net.session import Session", "a cycle: "),
    "a cycle in the foundation": ("node/interfaces.py", "from node.feed import Feed", "a cycle: "),
    "the root from within": ("node/net/host.py", "from node import open_node", "node.net.host:1 imports node: "),
    "the root as a whole": ("node/cli/commands/send.py", "import node", "imports node: import the module"),
    "a print": ("node/app.py", "print('hello')", "node.app:1 prints"),
}


@pytest.mark.parametrize(("name", "source", "expected"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, source: str, expected: str) -> None:
    """Each rule is known to bite, and says where and why."""
    found = violations(planted(tmp_path, {name: source}))
    assert any(expected in violation for violation in found), found


def test_importing_the_protocol_loads_nothing_that_runs() -> None:
    """A program that only speaks the protocol pays for neither an event loop nor a network."""
    code = (
        "import sys, protocol; print(*sorted({'trio', 'libp2p', 'multiaddr', 'node', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
