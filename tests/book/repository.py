"""A copy of the repository to change, and a kernel that does not see the installed package."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ("book", "hybridft_utils", "notebooks", "tools", "pyproject.toml", "README.md", "CITATION.cff")
BOOK = ("_config.yml", "_toc.yml")

#: Sees this environment's packages, but nothing that .pth files add, so no editable installation.
ISOLATED = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); exec(sys.argv.pop(1))",
]


def copy_repository(target: Path) -> Path:
    """Copy what the book and its package are made of."""
    for name in (*CARRIED, *BOOK):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
        elif source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def commit(folder: Path) -> str:
    """Turn a folder into a git repository; returns its file:// address."""
    git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "A copy"], check=True)
    return folder.as_uri()


def set_address(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """``make repo-url`` in a copy."""
    command = [sys.executable, str(folder / "tools" / "repo_url.py"), url]
    return subprocess.run(command, capture_output=True, text=True)


def isolated_kernel(folder: Path) -> dict[str, str]:
    """Install the kernel "isolated" below ``folder``; returns the environment that finds it."""
    spec = folder / "kernels" / "isolated"
    spec.mkdir(parents=True)
    start = "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
    argv = [*ISOLATED, start, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "", "language": "python"}))
    return {"JUPYTER_PATH": str(folder)}
