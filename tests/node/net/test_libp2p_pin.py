"""Another libp2p than the pinned one is an error of the installation, in words."""

import pytest

from node.net.errors import UnsupportedLibp2p
from node.net.libp2p_pin import LIBP2P_VERSION, require_names, require_pinned_libp2p, require_version


def test_the_installed_libp2p_is_the_pinned_one() -> None:
    """What the tests run with is what a user gets."""
    require_pinned_libp2p()


@pytest.mark.parametrize("version", ["0.7.0", "0.8.10", "0.9.0"])
def test_another_version_is_refused_with_the_command_that_helps(version: str) -> None:
    """The message names both versions, the remedy the command."""
    with pytest.raises(UnsupportedLibp2p) as caught:
        require_version(version)
    assert version in str(caught.value)
    assert f'pip install "libp2p=={LIBP2P_VERSION}"' in caught.value.remedy


def test_a_name_that_is_gone_is_reported_with_its_owner() -> None:
    """All of those that are missing, and only those."""
    with pytest.raises(UnsupportedLibp2p, match=r"lacks str\.upside_down, dict\.shuffle:"):
        require_names([(str, "upper"), (str, "upside_down"), (dict, "shuffle")])
