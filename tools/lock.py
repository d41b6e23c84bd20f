"""Write requirements.lock and environment.yml from the environment this runs in (``make lock``).

CUDA's packages stay out of the lock: PyTorch, installed before everything else, brings its own.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hybridft_utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("pip", "wheel", "hybridft-utils")
CUDA = ("nvidia-", "cuda-", "triton")


def installed() -> dict[str, str]:
    """Name and version of every distribution here, without local version tags such as +cpu."""
    freeze = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    pairs = (line.split("==") for line in freeze.stdout.split())
    pins = {canonicalize_name(name): version.partition("+")[0] for name, version in pairs}
    return {n: v for n, v in sorted(pins.items()) if n not in LEFT_OUT and not n.startswith(CUDA)}


def direct() -> list[str]:
    """Names that the package itself and the book ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["book"]
    return [canonicalize_name(Requirement(line).name) for line in asked]


def main() -> None:
    pins = installed()
    lines = ["# Every dependency, exactly; made by `make lock`."] + [f"{n}=={v}" for n, v in pins.items()]
    write_text(ROOT / "requirements.lock", "\n".join(lines) + "\n")
    listed = "".join(f"      - {name}=={pins[name]}\n" for name in direct())
    write_text(
        ROOT / "environment.yml",
        "# For conda and Binder; made by `make lock`.  The index holds PyTorch's builds without CUDA.\n"
        "name: hybridft\n"
        "channels: [conda-forge]\n"
        "dependencies:\n"
        "  - python=3.11\n"
        "  - pip\n"
        "  - pip:\n"
        "      - --extra-index-url https://download.pytorch.org/whl/cpu\n" + listed,
    )


if __name__ == "__main__":
    main()
