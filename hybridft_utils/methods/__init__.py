"""What a tuning method adds to a model: LoRA, prefix, soft prompt, adapter, and baselines that add nothing.

Here belongs how one method computes, starts and is put into a layer, where each architecture keeps its
layers, and what the methods share.  Several methods together on one model, and their files, are
:mod:`hybridft_utils.tuning`.
"""
