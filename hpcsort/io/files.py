"""Files that are either complete or absent: write under a temporary name, flush to disk, rename."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcsort.errors import OutputError

_STORAGE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` that becomes `path` when the block ends without an error.

    At the end of the block the file is flushed to disk (fsync), renamed over `path`, and the folder entry is flushed.
    If the block raises, the temporary file is removed and whatever stood at `path` before is untouched, so that a crash
    at any moment leaves either the old file or the new one, never half of one.

    Parameters
    ----------
    path
        Final place; its folder must exist.
    overwrite
        Whether a file that is already there may be replaced.

    Yields
    ------
    Path
        Place of an empty file in the same folder, with the same suffix as `path`; the block writes or replaces it.

    Raises
    ------
    OutputError
        If `path` exists and `overwrite` is false, if it is a folder, if its folder is missing or cannot be written, or
        if the disk is full.
    """
    target = Path(path)
    _check_target(target, overwrite)
    # The suffix stays last because some writers choose their format by it.
    temporary = target.with_name(f".{secrets.token_hex(6)}.{target.name}")
    try:
        temporary.open("xb").close()
        yield temporary
        _flush(temporary)
        # A file may have appeared while the block ran.
        _check_target(target, overwrite)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS or error.filename not in (None, str(temporary), str(target.parent)):
            raise
        reason = os.strerror(error.errno or 0).lower()
        raise OutputError(
            f"cannot write {target}: {reason}; free space or permissions there, or write elsewhere"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text_atomically(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 to `path` by write, fsync and rename.

    Raises
    ------
    OutputError
        As `atomic_write`.
    """
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder; give the name of a file")
    if not overwrite and os.path.lexists(target):
        raise OutputError(f"{target} exists already; choose another name or allow replacing it with --overwrite")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse fsync on a folder; the rename is then as durable as they make it.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)
