"""Measured runs: settings, training, the sentiment run, studies and sweeps.

Here belongs what trains, compares and keeps results.
"""
