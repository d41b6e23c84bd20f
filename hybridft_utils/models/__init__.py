"""Pretrained models: loading them, the book's own Llama, scoring and sampling text, pre-training.

Here belongs what concerns a language model before it is tuned.
"""
