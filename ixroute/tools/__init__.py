"""A card as a tool: `ixroute fwd`, `pktgen` and `dump`, which need no router. Each is a short example of how driver/ is
used as a library: memory, ports, queues, bursts, waiting.
"""
