"""The parts of ``examples/benchmark.py``: one module for each table, and the networks and timers that they share."""
