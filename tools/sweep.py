"""Run notebook 10 with every combination of a grid of settings and print one table (``make sweep``).

``python tools/sweep.py --grid '{"rank": [2, 8], "prefix_length": [4, 16]}' --jobs 2`` makes four runs.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hybridft_utils import InputError, sweep
from hybridft_utils.files import write_text

EXAMPLE = '{"rank": [2, 8]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--grid", default="", help="JSON: a list of values for each name")
    parser.add_argument("--settings", default="{}", help="JSON: one value for each name")
    parser.add_argument("--output_dir", default="runs/sweep")
    parser.add_argument("--jobs", default="1")
    options = parser.parse_args()
    grid, settings = (mapping(name, getattr(options, name)) for name in ("grid", "settings"))
    table = sweep(grid, settings=settings, output_dir=options.output_dir, jobs=options.jobs)
    write_text(Path(options.output_dir) / "sweep.csv", table.to_csv(index=False))
    print(table.to_string(float_format="%.2f"))
    print(f"\nkept as {Path(options.output_dir) / 'sweep.csv'}")


def mapping(name: str, text: str) -> dict[str, Any]:
    """The JSON object that an option holds."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(name, text, f"JSON such as '{EXAMPLE}' ({error})") from error
    if not isinstance(content, dict):
        raise InputError(name, text, f"a JSON object such as '{EXAMPLE}'")
    return content


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
