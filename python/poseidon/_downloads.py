"""What a script downloads comes to each host once: its first rank fetches it, and the others of that host read what it has fetched.

urllib's urlopen is replaced, which urlretrieve and torch.hub call; libraries that fetch by other means are not seen here. Where the first rank
does not fetch the same, or fails, each rank does as it would alone.
"""
import builtins
import functools
import hashlib
import io
import json
import os
import sys
import time
import urllib.request
import urllib.response
from email.message import Message

# As they are before anything is laid over the file system.
_open, _replace, _exists, _stat = builtins.open, os.replace, os.path.exists, os.stat

_EXPLAIN_AFTER_SECONDS = 2
# So long may the first rank take until it begins, and between two pieces.
_PATIENCE_SECONDS = 20


def install(rank, local_rank, folder):
    """`folder`: the same for all ranks of this host, and theirs alone."""
    os.makedirs(folder, exist_ok=True)
    fetch = urllib.request.urlopen

    @functools.wraps(fetch)
    def urlopen(url, data=None, *arguments, **options):
        address = _address(url, data)
        if address is None:
            return fetch(url, data, *arguments, **options)
        path = os.path.join(folder, hashlib.sha256(address.encode()).hexdigest())
        if local_rank != 0:
            found = _wait_for(path, rank, address)
            return found if found is not None else fetch(url, data, *arguments, **options)
        if _exists(path + ".json"):
            return _read(path)
        _open(path + ".begun", "wb").close()
        try:
            response = fetch(url, data, *arguments, **options)
            if "Content-Encoding" in response.headers:
                raise OSError("not as it lies there")
        except BaseException:
            _open(path + ".failed", "wb").close()
            raise
        return urllib.response.addinfourl(io.BufferedReader(_Copying(response, path)), response.headers, response.url, response.status)

    urllib.request.urlopen = urlopen
    return urlopen


def _address(url, data):
    """Of what may be fetched once for all; None for questions, and for parts of things."""
    if isinstance(url, str):
        return url if data is None and url.startswith(("http://", "https://", "ftp://")) else None
    is_plain = data is None and url.data is None and url.get_method() == "GET" and url.type in ("http", "https", "ftp")
    return url.full_url if is_plain and not url.has_header("Range") else None


class _Copying(io.RawIOBase):
    """Reads a response, and leaves a copy when all of it has come."""

    def __init__(self, response, path):
        self._response, self._path = response, path
        self._copy = _open(path + ".part", "wb")
        self._done = False

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self._response.readinto(buffer)
        if count:
            self._copy.write(memoryview(buffer)[:count])
            self._copy.flush()
        elif not self._done:
            self._done = True
            self._copy.close()
            self._leave()
        return count

    def _leave(self):
        told = self._response.headers.get("Content-Length")
        if told is not None and int(told) != _stat(self._path + ".part").st_size:
            return  # cut off
        _replace(self._path + ".part", self._path)
        with _open(self._path + ".new", "w") as about:
            json.dump({"url": self._response.url, "status": self._response.status, "headers": self._response.headers.items()}, about)
        _replace(self._path + ".new", self._path + ".json")

    def close(self):
        if not self.closed:
            if not self._done:
                self._copy.close()
                _open(self._path + ".failed", "wb").close()
            self._response.close()
        super().close()


def _read(path):
    with _open(path + ".json") as file:
        about = json.load(file)
    headers = Message()
    for name, value in about["headers"]:
        headers[name] = value
    return urllib.response.addinfourl(_open(path, "rb"), headers, about["url"], about["status"])


def _size(path):
    try:
        return _stat(path).st_size
    except OSError:
        return None


def _wait_for(path, rank, address):
    """What the first rank of this host has fetched; None where it has not."""
    begin = last_progress = time.monotonic()
    size, next_word = None, _EXPLAIN_AFTER_SECONDS
    while not _exists(path + ".json"):
        now = time.monotonic()
        if (now_size := (_size(path + ".part"), _exists(path + ".begun"))) != size:
            size, last_progress = now_size, now
        if _exists(path + ".failed") or now - last_progress > _PATIENCE_SECONDS:
            return None
        if now - begin >= next_word:
            print(f"poseidon: rank {rank} waits until the first rank of its host has fetched {address}, since {now - begin:.0f} s", file=sys.stderr, flush=True)
            next_word *= 2
        time.sleep(0.05)
    return _read(path)
