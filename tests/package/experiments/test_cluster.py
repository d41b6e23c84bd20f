"""Studies and sweeps on a Dask cluster by its address."""

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from dask.distributed import Client, LocalCluster

from benchmarks import points as runner
from hybridft_utils import InputError, LoRA, sweep
from hybridft_utils.experiments import cluster as module
from hybridft_utils.experiments import sweep as sweep_module
from hybridft_utils.experiments.cluster import cluster, jobs_or_address
from hybridft_utils.experiments.studies import Point


@pytest.fixture(scope="module")
def address():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        yield local.scheduler_address


def kill_a_worker_after_the_first_row(address, path, killed):
    while not path.exists() or not path.read_text().count("\n"):
        time.sleep(0.05)
    with Client(address) as client:
        killed += list(client.run(os.getpid).values())[:1]
        os.kill(killed[0], signal.SIGKILL)


def test_a_killed_worker_loses_nothing_and_no_row_comes_twice(
    address, model_folder, data_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    kept, killed = tmp_path / "runs/studies/ranks.jsonl", []
    killer = threading.Thread(target=kill_a_worker_after_the_first_row, args=(address, kept, killed))
    killer.start()
    small = {"model": str(model_folder), "train_size": 16, "epochs": 1, "precision": "fp32"}
    grid = {f"rank {r}": Point((LoRA(rank=r),), small) for r in (1, 2)}
    runner.run_points("ranks", grid, str(data_folder), address, seeds=range(4))
    killer.join()
    assert killed
    rows = json.loads((tmp_path / "study-ranks.json").read_text())["rows"]
    wanted = [(f"rank {r}", seed) for r in (1, 2) for seed in range(4)]
    assert [(row["point"], row["seed"]) for row in rows] == wanted
    assert len(kept.read_text().splitlines()) == len(wanted)
    runner.run_points("ranks", grid, str(data_folder), 1, seeds=range(4))
    again = json.loads((tmp_path / "study-ranks.json").read_text())["rows"]
    assert again == rows, "one process finds nothing left to do"


def test_a_sweep_goes_to_the_workers_of_an_address(monkeypatch, model_folder, data_folder, tmp_path):
    places, asked = [], []

    @contextmanager
    def workers(address):
        asked.append(address)
        with ThreadPoolExecutor(1) as pool:
            yield pool

    def run_one(place, given, cwd, threads):
        places.append((place.name, threads))
        return "no worker trains here"

    monkeypatch.setattr(sweep_module, "cluster", workers)
    monkeypatch.setattr(sweep_module, "run_one", run_one)
    settings = {"model": str(model_folder), "dataset": str(data_folder)}
    with pytest.raises(InputError, match="no worker trains here"):
        sweep({"rank": [1, 2]}, settings=settings, output_dir=tmp_path / "out", jobs="tcp://host:8786")
    assert asked == ["tcp://host:8786"] and places == [("000", 1), ("001", 1)]


def test_a_scheduler_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with (
        pytest.raises(
            InputError, match=r"^jobs: got 'tcp://127.0.0.1:9'; accepted: the address of a r"
        ) as error,
        cluster("tcp://127.0.0.1:9"),
    ):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [0, -1, True, "two", "", "1.5", "http://host:8786", "tcp://", None])
def test_what_is_neither_a_number_nor_an_address_is_refused(given):
    with pytest.raises(InputError, match=re.escape(f"jobs: got {given!r}")):
        jobs_or_address("jobs", given)


@pytest.mark.parametrize("given", [1, "16", "tcp://10.0.0.1:8786", "tls://host:1"])
def test_numbers_and_addresses(given):
    assert jobs_or_address("jobs", given) == (int(given) if str(given).isdigit() else given)
