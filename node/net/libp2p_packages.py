"""libp2p's packages, without what they load of themselves that a node has no use for.

To import any module of a package, Python runs the `__init__` of the package, and those of libp2p import nearly all of
libp2p: web clients, name services, port mappers, the DHT. Here the `__init__` of a package waits until somebody asks
the package for a name that only it can give. So a node imports the modules that it names, which halves what libp2p
costs at every start, and a program that has a use for libp2p itself finds it as it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# A package that is being run asks itself for names, and so do modules that it imports: the same thread goes on.
_running = threading.RLock()


class _WaitingPackage(ModuleType):
    """A package whose `__init__` runs when it is asked for a name that it has not got."""

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            self._run()
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def _run(self) -> None:
        with _running:
            loader = self.__spec__.loader if self.__spec__ is not None else None
            if isinstance(loader, _PackageLoader) and not loader.has_run:
                loader.run(self)


class _PackageLoader(Loader):
    """Loads a package without running it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.has_run = False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the empty package."""
        return _WaitingPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""

    def run(self, module: ModuleType) -> None:
        """Run its `__init__`; when that fails, the next one who asks for a name runs it again."""
        self.has_run = True
        try:
            self._loader.exec_module(module)
        except BaseException:
            self.has_run = False
            raise


class _PackageFinder(MetaPathFinder):
    """Finds a package, and those in it, before Python's own finders do."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module at or below the root; None for all others."""
        if fullname.partition(".")[0] != self.root:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None and spec.submodule_search_locations is not None:
            spec.loader = _PackageLoader(spec.loader)
        return spec


def let_packages_wait(root: str = "libp2p") -> None:
    """Let a package, and those in it, wait if they are imported from now on. Idempotent."""
    if not any(isinstance(finder, _PackageFinder) and finder.root == root for finder in sys.meta_path):
        sys.meta_path.insert(0, _PackageFinder(root))
