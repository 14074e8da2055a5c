"""Figures as files: PNG and SVG, whole or not at all, and the same bytes for the same figure."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lawkit.errors import ReportError
from lawkit.io._write import replace_file
from lawkit.report._style import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Dots per inch of the PNG.
DPI = 150


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Writes a figure as `name`.png and `name`.svg; the folder is made if need be.

    Parameters
    ----------
    figure
        What the functions of `lawkit.report` return.
    folder
        Where to.
    name
        Of the files, without a suffix.

    Returns
    -------
    list of Path
        The two files.

    Raises
    ------
    ReportError
        For a name that is none, and a folder that cannot be made or written to; older files are then untouched.
    """
    if name in ("", "..") or name != Path(name).name or "\0" in name:
        raise ReportError(f"a figure's name must be a plain file name, got {name!r}")
    target = Path(folder)
    content = {target / f"{name}.{suffix}": _drawn(figure, suffix) for suffix in ("png", "svg")}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, part in content.items():
            replace_file(part, path)
    except OSError as error:
        raise ReportError(
            f"figure {name} cannot be written to {target}: {error.strerror or error}; name a folder that can be "
            "written to"
        ) from error
    return list(content)


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse, before the work is done for them, figures that could not be drawn or written; the folder is made.

    Raises
    ------
    ReportError
        When matplotlib is not installed, or the folder cannot be made or written to.
    """
    with settings():
        pass
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ReportError(
            f"figures cannot be written to {folder}: {error.strerror or error}; name a folder that can be written to"
        ) from None


def _drawn(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with settings():
        # Without the date and the version, files differ only where figures do.
        nothing = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[suffix]
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=nothing)
    return buffer.getvalue()
