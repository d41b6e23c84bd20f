"""How fast, how large: side by side on this machine, as ratios with their spread.

``make bench`` (``python -m benchmarks.speed``) runs every measurement on one thread and writes
``benchmarks/results/bench-NAME.json``.  Seconds are processor seconds of this process, and candidates take turns
within a round, so that what else the machine does hits all alike.
"""
