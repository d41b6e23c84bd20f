"""pyproject's ranges, requirements.lock and environment.yml say the same."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pins(lines: list[str]) -> dict[str, str]:
    """Name to version; every line must be ``name==version`` and nothing else."""
    parsed = [Requirement(line) for line in lines]
    for line, requirement in zip(lines, parsed, strict=True):
        assert requirement.url is None and not requirement.extras and not requirement.marker, line
        assert [s.operator for s in requirement.specifier] == ["=="], line
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in parsed}


@pytest.fixture(scope="module")
def lock(root: Path) -> dict[str, str]:
    lines = (root / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if not line.startswith("#")])


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, list[Requirement]]:
    """Requirements by group: runtime, book and test."""
    table = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = {"runtime": table["dependencies"], **table["optional-dependencies"]}
    return {group: [Requirement(line) for line in lines] for group, lines in groups.items()}


@pytest.mark.parametrize("group", ["runtime", "book", "test"])
def test_lock_holds_every_dependency_within_its_range(project, lock, group: str) -> None:
    for requirement in project[group]:
        version = lock.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in the lock"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_environment_names_what_pyproject_asks_for_at_the_locked_versions(root, project, lock) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    direct = {canonicalize_name(r.name) for r in project["runtime"] + project["book"]}
    assert pins([line for line in listed if not line.startswith("--")]) == {n: lock[n] for n in direct}


def test_versions_that_are_fixed(lock) -> None:
    fixed = {"torch": "2.13.0", "jupyter-book": "1.0.4.post1", "sphinx-book-theme": "1.2.0"}
    assert {name: lock[name] for name in fixed} == fixed
    assert lock["transformers"].startswith("5.")


def test_lock_leaves_out_what_must_not_be_installed_by_it(lock) -> None:
    unwanted = ("nvidia-", "cuda-", "triton", "gt-all-", "jupyterlab", "hybridft-utils", "pip")
    assert [n for n in lock if n.startswith(unwanted) and n != "jupyterlab-pygments"] == []
