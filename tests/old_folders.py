"""Folders of saved tunings as the first version of the format was, which must load for ever."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from hybridft_utils.tuning.base_identity import sampled_checksum

OLD_SETTINGS = ("methods", "also_train", "gating", "base")


def as_format_1(folder: Path, model=None) -> None:
    """Rewrite what ``Tuning.save`` wrote; ``model`` is the base model, where it is to be compared."""
    path = folder / "tuning.json"
    settings = json.loads(path.read_text())
    tensors = load_file(folder / settings["weights"])
    (folder / settings["weights"]).unlink()
    save_file(tensors, folder / "tuning.safetensors", metadata={"format": "pt"})
    old = {"format_version": 1, **{name: settings[name] for name in OLD_SETTINGS}}
    for method in old["methods"]:
        if method.get("softmax") == "joint":  # all that there was
            del method["softmax"]
    if model is not None:
        trained = tensors.keys()
        sums = {n: sampled_checksum(p) for n, p in model.named_parameters() if n not in trained}
        old["base"] = {**old["base"], "checksums": sums}
    path.write_text(json.dumps(old))
