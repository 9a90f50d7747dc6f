"""The gateway for agents that speak the Model Context Protocol: `tools` translates, `server` speaks it."""
