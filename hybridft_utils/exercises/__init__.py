"""Graders: what a reader writes in an exercise, run on inputs of the book's own and judged in one sentence.

Here belongs one grader per exercise, the right answer it compares with, and the mistakes that it knows by
name.
"""
