"""Layouts that come with Outrider: ``small`` to try things on, ``standard``, ``dense`` with narrow aisles."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def library_names() -> list[str]:
    """Names of the layouts here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_layout(name_or_path: Path) -> Path:
    """The file of a layout: the path itself, or that of a name from the library where no such file exists."""
    named = FOLDER / f"{name_or_path}.yaml"
    if not name_or_path.exists() and str(name_or_path) in library_names():
        return named
    return name_or_path
