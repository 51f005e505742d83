"""Downloads of official files: with urllib, resumed after interruptions, checked by hash, moved into place
atomically."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from sddpm.data.sources import MIB, Request
from sddpm.errors import UserError
from sddpm.opening.files import user_path

_ATTEMPTS = 3
_TIMEOUT = 30.0  # seconds without data


def default_cache() -> Path:
    """SDDPM_CACHE, else `sddpm` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    if own := os.environ.get("SDDPM_CACHE"):
        return user_path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sddpm"


def cached_folder(name: str, request: Request, files: dict[str, str], places: tuple[str, ...]) -> Path:
    """The folder in the cache with the `files` (name -> md5) of a data set, downloading missing files if allowed.

    `places`: base URLs ending in a slash, tried in order. Raises `UserError` if files are missing and downloading is
    not allowed or fails.
    """
    folder = request.cache_dir / name
    missing = {file: md5 for file, md5 in files.items() if not (folder / file).is_file()}
    if missing and not request.download:
        raise UserError(f"{name} is not here: fetch it with `download=True`, or give its folder as `path`")
    if request.base_url:
        places = (f"{request.base_url.rstrip('/')}/{name}/",)
    for file, md5 in missing.items():
        fetch([place + file for place in places], folder / file, md5)
    return folder


def fetch(urls: list[str], target: Path, digest: str) -> None:
    """Downloads the first of `urls` that works to `target`, which appears only after its hash was checked.

    `digest` in hexadecimal: md5 if it has 32 digits, sha256 if it has 64.

    An interrupted transfer is resumed (if the server supports it), up to three times per URL.
    """
    problems = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part_path = target.with_name(f".{target.name}.{os.getpid()}.part")
        with part_path.open("w+b") as part:
            try:
                for url in urls:
                    part.truncate(0)
                    problem = _transfer(url, part) or _hash_problem(part, digest)
                    if problem is None:
                        part.close()
                        os.replace(part_path, target)
                        return
                    problems.append(f"{url}: {problem}")
            finally:
                part_path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    raise UserError(f"cannot download {target.name} ({'; '.join(problems)}); download it by hand into {target.parent}")


def _transfer(url: str, file: IO[bytes]) -> str | None:
    """Appends the body of `url` to `file`, resuming after interruptions. Returns the problem, or None."""
    if not url.startswith(("http://", "https://")):
        return "not an http(s) address"
    problem = None
    for _ in range(_ATTEMPTS):
        done = file.seek(0, os.SEEK_END)
        headers = {"User-Agent": "sddpm"} | ({"Range": f"bytes={done}-"} if done else {})
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as reply:
                if done and reply.status != 206:  # the server starts again from the beginning
                    file.seek(0)
                    file.truncate()
                    done = 0
                length = reply.headers.get("Content-Length")
                total = done + int(length) if length is not None else None
                title = url.rsplit("/", 1)[-1]
                with tqdm(desc=title, total=total, initial=done, unit="B", unit_scale=True, leave=False) as bar:
                    done += _copy(reply, file, bar)
            if total is None or done == total:
                return None
            problem = f"the transfer stopped after {done} of {total} bytes"
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:  # no route, interruption, timeout, full disk
            problem = str(getattr(error, "reason", error)) or type(error).__name__
    return problem


def _copy(reply: http.client.HTTPResponse, file: IO[bytes], bar: tqdm) -> int:
    copied = 0
    while block := reply.read(MIB // 4):
        file.write(block)
        copied += len(block)
        bar.update(len(block))
    return copied


def _hash_problem(file: IO[bytes], digest: str) -> str | None:
    kind = {32: "md5", 64: "sha256"}[len(digest)]
    actual = hashlib.new(kind, usedforsecurity=False)
    file.seek(0)
    while block := file.read(MIB):
        actual.update(block)
    found = actual.hexdigest()
    return None if found == digest else f"{kind} is {found}, not the published {digest}"
