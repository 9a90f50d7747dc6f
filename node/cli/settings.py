"""Which settings a command works with, and which data folder.

A command that only asks a running node does not load the settings when it is told the folder: that takes a tenth of a
second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.cli.options import Invocation

if TYPE_CHECKING:
    from node.config import NodeConfig


def default_folder() -> Path:
    """Return the data folder of a user who has named none."""
    import platformdirs

    return platformdirs.user_data_path("peertask", appauthor=False)


def load_settings(call: Invocation, *, defaults: dict[str, object] | None = None, **overrides: Any) -> NodeConfig:
    """Read the settings that hold for a command: its options, the environment, the configuration file.

    Args:
        call: its options.
        defaults: what holds where nobody says otherwise.
        overrides: what holds whatever others say; None counts as not given.

    Raises:
        PeertaskError: code INVALID_CONFIG; names the setting and the place.
    """
    from node.config import NodeConfig

    return NodeConfig.load(
        call.config,
        defaults={"data": default_folder(), **(defaults or {})},
        data=call.data,
        log_level=call.log_level,
        log_format=call.log_format,
        **overrides,
    )


def data_folder(call: Invocation) -> Path:
    """Return the data folder whose node a command asks; raises as `load_settings` does when it is not an option."""
    return folder_of(load_settings(call)) if call.data is None else call.data.expanduser().absolute()


def folder_of(config: NodeConfig) -> Path:
    """Return the data folder of settings that `load_settings` has read: there always is one."""
    return (config.data or default_folder()).absolute()
