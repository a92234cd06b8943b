"""What tests and benchmarks share: packets byte by byte, named frames, players and listeners on the wires."""
