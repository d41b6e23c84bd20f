"""Run notebook 10 with every combination of a grid of settings and print one table (``make sweep``).

``python tools/sweep.py --grid '{"rank": [2, 8], "prefix_length": [4, 16]}' --jobs 2`` makes four runs.
"""

import argparse
import json
from pathlib import Path

from hybridft_utils import InputError, sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--grid", required=True, help="JSON: a list of values for each name")
    parser.add_argument("--settings", default="{}", help="JSON: one value for each name")
    parser.add_argument("--output_dir", default="runs/sweep")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    try:
        grid, settings = json.loads(options.grid), json.loads(options.settings)
    except ValueError as error:
        raise SystemExit(
            str(InputError("grid", f"{options.grid} {options.settings}", f"JSON ({error})"))
        ) from error
    try:
        table = sweep(grid, settings=settings, output_dir=options.output_dir, jobs=options.jobs)
    except InputError as error:
        raise SystemExit(str(error)) from error
    table.to_csv(Path(options.output_dir) / "sweep.csv", index=False)
    print(table.to_string(float_format="%.2f"))
    print(f"\nkept as {Path(options.output_dir) / 'sweep.csv'}")


if __name__ == "__main__":
    main()
