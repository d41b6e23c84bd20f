"""Break chosen lines of the package one by one, on a copy: the tests must notice each.

``python tests/mutations.py`` runs them all, ``python tests/mutations.py gate`` those with "gate" in
their name.  Exit code 1 if a broken line goes unnoticed.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str  # in hybridft_utils
    line: str  # occurs once there
    broken: str
    tests: str  # what must go red, in tests


MUTATIONS = [
    Mutation("LoRA drops alpha / r", "methods/lora.py", "self.scaling = alpha / rank", "self.scaling = 1.0", "package/methods/test_lora.py"),
    Mutation("LoRA's B does not start at zero", "methods/lora.py", "torch.zeros(d_out, rank)", "torch.ones(d_out, rank)", "package/methods/test_lora.py"),
    Mutation("LoRA ignores dropout", "methods/lora.py", "self.dropout(x.to(self.lora_A.dtype))", "x.to(self.lora_A.dtype)", "package/methods/test_lora.py"),
    Mutation("Conv1D merged untransposed", "methods/lora.py", "self.delta().T if isinstance(self.base, Conv1D)", "self.delta() if isinstance(self.base, Conv1D)", "package/methods/test_lora.py"),
    Mutation("base not frozen", "tuning/attached.py", "parameter.requires_grad_(name in self.in_place)", "pass", "package/tuning/test_attach.py -k frozen"),
    Mutation("merge keeps LoRA on", "tuning/attached.py", "if part.name not in layers]", "if True]", "package/methods/test_lora.py -k merged"),
    Mutation("detach forgets the trained base", "tuning/attached.py", 'self._take("detached")\n        self._swap()', 'self._take("detached")', "package/methods/test_baselines.py"),
    Mutation("prefix mask hidden", "methods/prefix.py", "front[0].shape[2]), mask.dtype == torch.bool)\n", "front[0].shape[2]), mask.dtype != torch.bool)\n", "equivalence/test_prefix_equals_peft.py -k identical"),
    Mutation("prefix mask behind the text's", "methods/prefix.py", "torch.cat([seen, mask.expand(batch, -1, -1, -1)], dim=-1)", "torch.cat([mask.expand(batch, -1, -1, -1), seen], dim=-1)", "equivalence/test_prefix_equals_peft.py -k identical"),
    Mutation("plain causal mask skipped", "methods/prefix.py", '"allow_is_causal_skip": False', '"allow_is_causal_skip": True', "equivalence/test_prefix_equals_peft.py -k identical"),
    Mutation("plain two-way mask skipped", "methods/prefix.py", '"allow_is_bidirectional_skip": False', '"allow_is_bidirectional_skip": True', "equivalence/test_prefix_equals_peft.py -k bert"),
    Mutation("gate not applied", "methods/prefix.py", "seen = sum(map(F.logsigmoid, gate_logits), seen)", "seen = sum([], seen)", "package/methods/test_prefix.py -k gate"),
    Mutation("gate instead of its logarithm", "methods/prefix.py", "map(F.logsigmoid, gate_logits)", "map(torch.sigmoid, gate_logits)", "package/methods/test_prefix.py -k gate"),
    Mutation("separate prefix starts with values", "methods/prefix.py", "(0 if separate else RANDOM_STD)", "RANDOM_STD", "package/methods/test_prefix.py -k starts_as_the_base"),
    Mutation("values of words at the start", "methods/prefix.py", "torch.zeros_like(value) if prefix.separate else value", "value", "package/methods/test_prefix.py -k starts_as_the_base"),
    Mutation("network starts with values", "methods/prefix.py", "nn.init.zeros_(parameter[heads * head_dim :])", "pass", "package/methods/test_prefix.py -k starts_as_the_base"),
    Mutation("tokens see the prefix in turn", "methods/prefix.py", '"is_causal": False}', '"is_causal": None}', "package/methods/test_prefix.py -k its_own_attention"),
    Mutation("separate gate not applied", "methods/prefix.py", "for z in gate_logits:", "for z in []:", "package/methods/test_prefix.py -k gate"),
    Mutation("old tunings lose the joint softmax", "methods/registry.py", '{"softmax": "joint"}', "{}", "package/tuning/test_saved_folder.py -k old_folders"),
    Mutation("separate prefix sent to PEFT", "tuning/peft_export.py", 'if method.softmax != "joint":', "if False:", "package/tuning/test_peft_folders.py -k cannot_hold"),
    Mutation("prefix moves positions by default", "tuning/attached.py", 'if isinstance(m, Prefix) and m.positions == "shift"', "if isinstance(m, Prefix)", "package/methods/test_prefix.py -k task"),
    Mutation("positions off by one", "methods/input_hook.py", "(mask.cumsum(-1) - 1)", "mask.cumsum(-1)", "package/tuning/test_attach.py -k padding"),
    Mutation("positions ignore padding", "methods/input_hook.py", "self.architecture.causal and isinstance(mask, Tensor)", "False and isinstance(mask, Tensor)", "package/tuning/test_attach.py -k padding"),
    Mutation("soft prompt's rows kept", "methods/input_hook.py", "output.last_hidden_state[:, self.length :]", "output.last_hidden_state[:, 1 : 1 - self.length]", "package/methods/test_soft_prompt.py"),
    Mutation("soft prompt's mask off by one", "methods/input_hook.py", "device=mask.device) > rows", "device=mask.device) >= rows", "package/tuning/test_attach.py -k greedy"),
    Mutation("cache's mask too long", "methods/input_hook.py", "mask = mask[..., : keys - self.length]", "mask = mask", "package/tuning/test_attach.py -k greedy"),
    Mutation("adapter does not start at zero", "methods/adapter.py", "nn.init.zeros_(self.up.weight)", "pass", "package/methods/test_adapter.py"),
    Mutation("parallel adapter reads the output", "methods/adapter.py", 'y if self.placement == "sequential" else x', "y", "package/methods/test_adapter.py"),
    Mutation("adapter's gate ignored", "methods/adapter.py", "added = adapter.gate(x) * added", "pass", "package/tuning/test_attach.py -k input_gates"),
    Mutation("layer decay upside down", "methods/baselines.py", "(len(layers) - depth)", "depth", "package/methods/test_baselines.py"),
    Mutation("frozen layer trained", "methods/baselines.py", "depth > self.freeze_layers", "depth >= self.freeze_layers", "package/methods/test_baselines.py"),
    Mutation("another base accepted", "tuning/base_identity.py", 'given["checksums"].get(name) != sums.get(name)', "False", "package/tuning/test_saved_folder.py"),
    Mutation("exported keys not rotated", "tuning/peft_export.py", "key = rotated(tuning, key, method.length)", "pass", "package/tuning/test_peft_folders.py -k prefix_out"),
    Mutation("imported alpha ignores the pattern", "tuning/peft_lora.py", "values[path] = patterns[pattern]", "pass", "package/tuning/test_peft_folders.py -k lora_in"),
    Mutation("a failed write leaves its temporary file", "files.py", "fresh.unlink(missing_ok=True)", "pass", "package/test_files.py -k failed_write"),
    Mutation("files are written in place", "files.py", "os.replace(fresh, target)", "target.write_bytes(fresh.read_bytes())", "package/tuning/test_saving.py -k beside_writers"),
    Mutation("a folder is locked by nobody", "files.py", "lock.acquire()", "pass", "package/test_files.py -k second_run"),
    Mutation("killed writers' files stay", "files.py", "left.unlink(missing_ok=True)", "pass", "package/test_files.py -k second_run"),
    Mutation("settings saved before the tensors", "tuning/saved_folder.py", "write_tensors(place / weights, state)\n            write_json(place / SETTINGS, settings)", "write_json(place / SETTINGS, settings)\n            write_tensors(place / weights, state)", "package/tuning/test_saving.py -k stopped"),
    Mutation("replaced tensors stay", "tuning/saved_folder.py", "(place / name).unlink(missing_ok=True)", "pass", "package/tuning/test_saving.py -k everything_else"),
    Mutation("a reader looks once", "tuning/saved_folder.py", "if newer == settings:", "if True:", "package/tuning/test_saving.py -k looks_again"),
    Mutation("edited settings accepted", "tuning/saved_folder.py", 'settings.get("checksum") != settings_checksum(content)', "False", "package/tuning/test_saved_folder.py -k any_other_setting"),
    Mutation("changed tensors accepted", "tuning/saved_folder.py", "tensor_checksum(state[name]) != saved[name]", "False", "package/tuning/test_saved_folder.py -k other_tensors"),
    Mutation("NaN loaded", "tuning/attached.py", "if not value.isfinite().all():", "if False:", "package/tuning/test_saved_folder.py -k do_not_fit"),
    Mutation("whole numbers loaded", "tuning/attached.py", "value.dtype not in PRECISIONS", "False", "package/tuning/test_saved_folder.py -k do_not_fit"),
    Mutation("another label order accepted", "tuning/load.py", "if not same(name, saved.get(name), given.get(name)):", "if False:", "package/test_classify.py -k label_order"),
    Mutation("a part of a tuned model is tuned", "tuning/marks.py", "hasattr(held, MARK)", "False", "package/tuning/test_refusals.py -k tuned_again"),
    Mutation("shared layers accepted", "methods/parts.py", "if other != path:", "if False:", "package/tuning/test_refusals.py -k one_module"),
    Mutation("patterns that fit nothing accepted", "methods/lora.py", "if not any(ends_with(path, ending) for path in paths):", "if False:", "package/tuning/test_refusals.py -k patterns"),
    Mutation("merged into a computed weight", "tuning/attached.py", "len(holders) != 1", "len(holders) > 1", "package/tuning/test_refusals.py -k computed"),
    Mutation("positions past the context", "methods/input_hook.py", "moved + text_before + tokens > context", "False", "package/tuning/test_refusals.py -k context"),
    Mutation("packed texts accepted", "methods/input_hook.py", "self.check_one_text(kwargs.get(\"position_ids\"))", "pass", "package/tuning/test_refusals.py -k packed"),
    Mutation("PEFT's settings replaced", "tuning/peft_folder.py", "refuse_other_settings(folder, there, settings)", "write_json(config, settings)", "package/tuning/test_peft_replacing.py -k hybrid"),
    Mutation("PEFT's settings before the tensors", "tuning/peft_folder.py", "write_json(fresh, settings)  #", "write_json(config, settings)  #", "package/tuning/test_peft_replacing.py -k killed"),
    Mutation("an import overwrites the base", "tuning/peft_import.py", "if not listed and not (name in own and enlarged):", "if name not in own:", "package/tuning/test_peft_folders.py -k overwritten"),
    Mutation("PEFT's files of two exports read", "tuning/peft_folder.py", "not in (None, pair_checksum(settings))", "in ()", "package/tuning/test_saving.py -k written_together"),
    Mutation("a line breaks in two", "files.py", "return UNSAFE.sub(", "return re.compile(\"$^\").sub(", "package/test_classify.py -k any_text"),
    Mutation("seeds' variance left out", "evidence/statistics.py", "by_seed = of_seed.var(ddof=1) / seeds", "by_seed = 0 * of_seed.var(ddof=1) / seeds", "package/evidence/test_statistics.py -k cover"),
    Mutation("texts' variance left out", "evidence/statistics.py", "by_text = max(0.0, by_text", "by_text = 0 * max(0.0, by_text", "package/evidence/test_statistics.py -k cover"),
    Mutation("Holm's steps may fall", "evidence/statistics.py", "np.maximum.accumulate(np.asarray(p, dtype=float)[order] * left)", "(np.asarray(p, dtype=float)[order] * left)", "package/evidence/test_statistics.py -k holm"),
    Mutation("as good as is not corrected", "evidence/statistics.py", "bool(inferior[i] < ALPHA)", "bool(mean.p(-margin) < ALPHA and mean.value > -margin)", "package/evidence/test_statistics.py -k as_good_as"),
    Mutation("fast: the answer's slot is off by one", "classifiers/answer_slot.py", "slots + x.shape[1] - tokens", "slots + x.shape[1] - tokens - 1", "package/classifiers/test_fast_path.py"),
    Mutation("fast: a soft prompt's rows are not counted", "classifiers/answer_slot.py", "slots + x.shape[1] - tokens", "slots", "package/classifiers/test_fast_path.py -k prompt"),
    Mutation("fast: one slot where gates report all tokens", "classifiers/answer_slot.py", "or gated", "or False", "package/classifiers/test_fast_path.py -k gates"),
    Mutation("fast: one slot though layers are recomputed", "classifiers/answer_slot.py", "return model.training and any", "return False and any", "package/classifiers/test_fast_path.py -k checkpointing"),
    Mutation("fast: another word's row of the output matrix", "classifiers/prompt_classifier.py", "torch.tensor([tokens[0] for", "torch.tensor([tokens[0] + 1 for", "package/classifiers/test_fast_path.py"),
    Mutation("fast: first tokens stand for whole label words", "classifiers/prompt_classifier.py", "any(len(tokens) > 1 for _, tokens in self.words)", "False", "package/classifiers/test_fast_path.py"),
    Mutation("fast: the merged product drops the scale", "methods/low_rank.py", "torch.addmm(W, B, A, alpha=scaling)", "torch.addmm(W, B, A)", "package/methods/test_low_rank.py"),
    Mutation("fast: the two products drop the scale", "methods/low_rank.py", "(product(rows, A), B.T, alpha=scaling)", "(product(rows, A), B.T)", "package/methods/test_low_rank.py"),
    Mutation("fast: the input's gradient drops the scale", "methods/low_rank.py", "(low, A, alpha=ctx.scaling)", "(low, A)", "package/methods/test_low_rank.py"),
    Mutation("fast: B's gradient drops the scale", "methods/low_rank.py", "lora_B.dtype).mul_(ctx.scaling)", "lora_B.dtype)", "package/methods/test_low_rank.py"),
    Mutation("fast: small updates rounded away", "methods/low_rank.py", "if not autocast and len(rows)", "if len(rows)", "package/methods/test_low_rank.py -k autocast"),
    Mutation("fast: a trained base gets no gradient", "methods/lora.py", "and not weight.requires_grad", "and True", "package/methods/test_low_rank.py -k falls_back"),
    Mutation("fast: oneDNN's layer gives the weight no gradient", "methods/products.py", "if need_weight else None", "if False else None", "package/methods/test_products.py"),
    Mutation("fast: a frozen weight's input is kept", "methods/products.py", "x if ctx.needs_input_grad[1] else None", "x", "package/methods/test_products.py"),
    Mutation("fast: oneDNN's products are not counted", "methods/products.py", "return 2 * prod(x) * weight[0]", "return 0", "package/methods/test_products.py"),
    Mutation("fast: single precision under autocast", "methods/products.py", 'and not torch.is_autocast_enabled("cpu")', "and True", "package/methods/test_products.py -k onednn"),
    Mutation("fast: Conv1D's weight not transposed", "methods/products.py", "Linear.apply(x, weight.T, bias)", "Linear.apply(x, weight, bias)", "package/methods/test_products.py -k conv1d"),
    Mutation("fast: attention in half precision", "methods/prefix.py", "tensor.float() if tensor is not None and tensor.dtype in HALF else tensor", "tensor", "package/methods/test_prefix.py -k autocast"),
]  # fmt: skip


def warm_up() -> None:
    """Import what the tests import, but for the package, so that each copy starts from here."""
    for name in ("pytest", "hypothesis", "peft", "torch.optim", "transformers.trainer"):
        importlib.import_module(name)
    for name in ("llama", "gpt2", "bert", "mistral", "qwen2", "qwen3"):
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def broken_copy(mutation: Mutation, folder: Path) -> None:
    """What the tests need, with the broken line."""
    for part in ("hybridft_utils", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "hybridft_utils/assets").symlink_to(ROOT / "hybridft_utils/assets")
    path = folder / "hybridft_utils" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.line) != 1:
        raise SystemExit(
            f"{mutation.name}: {mutation.line!r} occurs {text.count(mutation.line)} times, not once"
        )
    path.write_text(text.replace(mutation.line, mutation.broken), encoding="utf-8")


def run_tests(mutation: Mutation, folder: Path) -> NoReturn:
    """In a process of its own: pytest on the copy, its exit code."""
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    assert importlib.import_module("hybridft_utils").__file__ == str(folder / "hybridft_utils/__init__.py")
    file, *selection = mutation.tests.split(" ", 2)
    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"tests/{file}", *selection])))


def survives(mutation: Mutation) -> bool:
    """Whether the tests stay green with the broken line."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        broken_copy(mutation, folder)
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(mutation, folder))
        process.start()
        process.join()
        if process.exitcode not in (0, 1):  # no tests ran, or pytest itself failed
            tail = (folder / "log").read_text()[-3000:]
            raise SystemExit(f"{mutation.name}: pytest ended with {process.exitcode}\n{tail}")
        return process.exitcode == 0


def main() -> int:
    chosen = [m for m in MUTATIONS if all(word in m.name for word in sys.argv[1:])]
    start = time.perf_counter()
    warm_up()
    unnoticed = 0
    for mutation in chosen:
        alive = survives(mutation)
        print(f"{'UNNOTICED' if alive else 'noticed':9}  {mutation.name}", flush=True)
        unnoticed += alive
    print(f"{len(chosen) - unnoticed} of {len(chosen)} noticed in {time.perf_counter() - start:.0f} s")
    return 1 if unnoticed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
