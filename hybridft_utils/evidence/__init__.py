"""How sure a number is, and where it comes from: scores, intervals, verdicts, versions, data fingerprints.

Nothing here knows about models or methods.
"""
