"""The installed libp2p must be the one that the work-arounds in this folder were written and tested for."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from node.net.errors import UnsupportedLibp2p

LIBP2P_VERSION = "0.8.1"
"""Exactly this one: between two releases libp2p changes more than a hundred files, private names among them."""

_REMEDY = f'Install it into the environment that runs peertask: python -m pip install "libp2p=={LIBP2P_VERSION}"'


def require_pinned_libp2p() -> None:
    """Check the installed libp2p without importing it.

    Raises:
        UnsupportedLibp2p: libp2p is missing or has another version.
    """
    try:
        installed = version("libp2p")
    except PackageNotFoundError as error:
        raise UnsupportedLibp2p("libp2p is not installed", remedy=_REMEDY) from error
    require_version(installed)


def require_version(installed: str) -> None:
    """Check a version of libp2p.

    Raises:
        UnsupportedLibp2p: it is not the pinned one.
    """
    if installed != LIBP2P_VERSION:
        raise UnsupportedLibp2p(
            f"peertask needs libp2p {LIBP2P_VERSION} exactly, but {installed} is installed; "
            "its defects and private names differ from one version to the next",
            remedy=_REMEDY,
        )


def require_names(names: Iterable[tuple[object, str]]) -> None:
    """Check that every name which this folder relies on exists, given as pairs of owner and name.

    Raises:
        UnsupportedLibp2p: at least one is missing, so the installed files are not those of the pinned version.
    """
    missing = [f"{getattr(owner, '__name__', owner)}.{name}" for owner, name in names if not hasattr(owner, name)]
    if missing:
        raise UnsupportedLibp2p(
            f"libp2p {LIBP2P_VERSION} as installed lacks {', '.join(missing)}: its files were changed", remedy=_REMEDY
        )
