# Finds the package of this book: installed, in a folder above this one, or in the repository (Colab).
import importlib.util
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = ""


def find_package(name="hybridft_utils"):
    if importlib.util.find_spec(name):
        return
    here = Path.cwd()
    copy = here / "hybridft-book"
    root = next(
        (p for p in (here, *here.parents, copy) if (p / name / "__init__.py").exists()),
        None,
    )
    if root is None and REPOSITORY:
        root = copy
        if subprocess.run(
            ["git", "clone", "--quiet", "--depth", "1", REPOSITORY, copy]
        ).returncode:
            raise ModuleNotFoundError(
                f"{name} is not here and git could not clone {REPOSITORY}."
            )
        install_missing(
            tomllib.loads((copy / "pyproject.toml").read_text())["project"][
                "dependencies"
            ]
        )
    if root is None:
        raise ModuleNotFoundError(
            f"{name} is not installed and not in {here} or above: see the README."
        )
    sys.path.insert(0, str(root))


def install_missing(requirements):
    from packaging.requirements import Requirement

    missing = []
    for requirement in map(Requirement, requirements):
        try:
            fits = requirement.specifier.contains(version(requirement.name))
        except PackageNotFoundError:
            fits = False
        if not fits and requirement.name not in (
            "torch",
            "numpy",
        ):  # these two stay as they are
            missing.append(str(requirement))
    if missing:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True
        )


find_package()
warnings.filterwarnings(
    "ignore", message="IProgress not found"
)  # tqdm's bars are text, and that is fine
