"""LMDB databases of image files, the format of LSUN: a folder with data.mdb, where every value is a compressed
image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from sddpm.errors import UserError

DATA_FILE = "data.mdb"

_in_use: WeakValueDictionary[Path, Any] = WeakValueDictionary()  # a process can open a database only once


def is_lmdb(folder: Path) -> bool:
    """Whether a folder is an LMDB database."""
    return (folder / DATA_FILE).is_file()


def open_lmdb(folder: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The keys of a database in its (byte) order, and a function from a key to its value.

    Nothing is written, not even a lock file; several threads can read at the same time.

    Raises:
        UserError: the package lmdb is not installed, or the database is damaged or incomplete.
    """
    try:
        import lmdb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{folder} is an LMDB database: reading it needs `pip install lmdb`") from error
    try:
        database = _in_use.get(folder.resolve())
        if database is None:
            database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
            _in_use[folder.resolve()] = database
        # The file is mapped into memory: reading beyond its end would kill the process.
        whole = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        if whole > (size := (folder / DATA_FILE).stat().st_size):
            raise UserError(f"{folder / DATA_FILE} is incomplete: it has {size:,} of {whole:,} bytes")
        with database.begin() as transaction:
            names = [key.decode("latin-1") for key in transaction.cursor().iternext(keys=True, values=False)]
    except lmdb.Error as error:
        raise UserError(f"{folder} is not a readable LMDB database: {error}") from error

    def read(name: str) -> bytes:
        with database.begin() as transaction:
            content = transaction.get(name.encode("latin-1"))
        assert content is not None  # names are keys of the database
        return content

    return names, read
