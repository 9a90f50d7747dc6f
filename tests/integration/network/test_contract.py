"""The network over real hosts keeps the contracts that tests in memory rely on."""

from __future__ import annotations

from node.testing import check_channels, check_network
from tests.integration.networks import network_pair


async def test_the_network_keeps_the_contract_of_networks() -> None:
    """The same promises as the network in memory that other tests rely on."""
    await check_network(network_pair)


async def test_its_channels_keep_the_contract_of_channels() -> None:
    """Over real streams as over memory."""
    await check_channels(network_pair)
