"""Labelled texts: reading them from files, folders, the Hub and this package, exactly as they are written.

Here belongs what turns a table into texts and labels.  Models that classify them are
:mod:`hybridft_utils.classifiers`.
"""
