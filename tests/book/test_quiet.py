"""``tools/quiet`` keeps what a command prints, and shows it if the command fails."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("code", [0, 3])
def test_a_failure_is_shown_with_its_log_and_exit_code(root: Path, tmp_path: Path, code: int) -> None:
    quiet = shutil.copy(root / "tools" / "quiet", tmp_path)
    script = f"echo a page: WARNING: dead link; seq 100; exit {code}"
    done = subprocess.run([quiet, "html", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and not done.stdout
    assert (tmp_path / "_build/log/html.log").read_text().endswith("99\n100\n")
    if code:
        assert "dead link" in done.stderr and "\n100\n" in done.stderr and "\n50\n" not in done.stderr
        assert "the whole log:" in done.stderr.splitlines()[-1]
    else:
        assert not done.stderr
