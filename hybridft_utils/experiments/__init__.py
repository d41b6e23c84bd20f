"""Measured runs: settings, training, the sentiment run, studies, sweeps, statistics, where a result comes from.

Here belongs what trains, compares and keeps results.
"""
