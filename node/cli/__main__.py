"""Lets ``python -m node.cli`` do what the command ``peertask`` does, also where it is not installed."""

from node.cli.entry import main

main()
