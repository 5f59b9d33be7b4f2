"""Waiting for the disk. Imports nothing large: pages that rate pictures need it too."""

import errno
import os
from pathlib import Path

NO_SUCH_CALL = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # a network's file system may not know how to sync a folder


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk: a renamed file that is not may be empty after a power cut."""
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:
        if not path.is_dir():
            raise
        return  # Windows opens no folders; there the rename itself is journalled
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_SUCH_CALL:
            raise
    finally:
        os.close(handle)
