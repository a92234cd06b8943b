"""The files of the project, without what building and testing leave between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "ixroute"
LEFT_BY_TOOLS = (
    "build",
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
)


def files(*suffixes: str, under: Path = TOP) -> Iterator[Path]:
    """Files with one of these suffixes (all, when there is none), in order."""
    for path in sorted(under.rglob("*")):
        parts = path.relative_to(TOP).parts
        if any(part.startswith(LEFT_BY_TOOLS) or part.endswith(".egg-info") for part in parts):
            continue
        if path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def name(path: Path) -> str:
    return str(path.relative_to(TOP))
