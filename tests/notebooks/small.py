"""Small parameters for a quick rerun of every notebook by papermill."""

SMALL: dict[str, dict[str, object]] = {}
