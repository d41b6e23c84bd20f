"""What a notebook needs besides its lesson: checked parameters, progress, figures, a gradient check.

Nothing here knows about models or data.
"""
