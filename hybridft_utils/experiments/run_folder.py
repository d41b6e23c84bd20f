"""Where a run keeps what it has finished, so that a killed run goes on and two runs never mix."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from datasets import DatasetDict
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError
from ..evidence.provenance import fingerprint
from ..files import writable, write_text
from ..tuning.saved_folder import read_tuning
from .config import RunConfig
from .results import MethodResult, RunResult

ROW = TypeAdapter(MethodResult)


def run_key(config: RunConfig, data: DatasetDict, base: str) -> str:
    """A hash of all that decides a run's results: its settings, with the rates that its methods take by default,
    its data, and its base model's weights.
    """
    settings = config.model_dump(mode="json", exclude={"output_dir", "resume"})
    kinds = {"also_train", *(kind for method in config.methods for kind in method.split("+"))}
    settings["learning_rate"] = {kind: rate for kind, rate in config.rates().items() if kind in kinds}
    labels = data["train"].features["label"].names
    content = {"settings": settings, "data": fingerprint(data), "labels": labels, "base": base}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class RunFolder:
    """The folder ``run-KEY`` of ``output_dir``, with tunings and with finished rows in ``finished.jsonl``.

    The folder that ``results.json`` refers to stays as it is until new results take their place: a run with
    other settings has another key, and a run with the same ones uses ``run-KEY-again``.  With ``resume`` the
    rows of the same key count, unless their tuning is missing or damaged.
    """

    def __init__(self, config: RunConfig, key: str):
        self.output, self.key = Path(config.output_dir), key
        kept = kept_result(self.output)
        in_use = {Path(r.tuning).parent.name for r in kept.results if r.tuning} if kept else set()
        names = (f"run-{key}", f"run-{key}-again")
        self.kept = kept if config.resume and kept and kept.provenance.get("key") == key else None
        if self.kept is not None:
            self.name = names[1] if names[1] in in_use else names[0]
            rows = self.kept.results
        else:
            self.name = next(name for name in names if name not in in_use)
            rows = self.read() if config.resume else []
        self.rows = {(r.method, r.seed): r for r in rows if self.has_tuning(r)}

    def whole(self) -> RunResult | None:
        """The results of the same run, where it was finished and every tuning is still there."""
        if self.kept is None or len(self.rows) < len(self.kept.results):
            return None
        return self.kept

    def get(self, method: str, seed: int) -> MethodResult | None:
        return self.rows.get((method, seed))

    def keep(self, result: MethodResult) -> None:
        self.rows[result.method, result.seed] = result
        lines = [json.dumps(asdict(row)) + "\n" for row in self.rows.values()]
        write_text(self.path, "".join(lines))

    @property
    def path(self) -> Path:
        return self.output / self.name / "finished.jsonl"

    def read(self) -> list[MethodResult]:
        """The rows that can be read; what was cut by a kill or by damage is measured again."""
        with writable("output_dir", self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
        rows = []
        for line in content.split(b"\n"):
            try:
                rows.append(ROW.validate_json(line))
            except ValidationError:
                continue
        return rows

    def has_tuning(self, row: MethodResult) -> bool:
        """Whether the tuning that the row names, if any, is there and undamaged."""
        try:
            return row.tuning is None or bool(read_tuning(self.output / row.tuning))
        except InputError:
            return False


def kept_result(output: Path) -> RunResult | None:
    """The results in ``output``; None where there are none that can be read."""
    try:
        return RunResult.load(output / "results.json")
    except InputError:
        return None
