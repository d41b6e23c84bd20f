"""Methods attached to a model, any of them together: switching, merging, saving, loading, PEFT's folders.

Here belongs everything about a tuning as a whole and the files that hold it.  What a single method computes
is :mod:`hybridft_utils.methods`.
"""
