"""A whole network on one machine: an orchestrator stand-in, a gateway's segments, and the pool."""
