"""The child's side of a probe, run as `python -m sanderling.releases.probe_worker`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking.golden_check import faults
from sanderling.releases.probe import ProbeAnswer, ProbeRequest
from sanderling.runtime.child_process import limit_resources, take_stdout


def main() -> None:
    """Read the request from stdin, try the bundle, and write the answer to stdout."""
    answers = take_stdout()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    limit_resources(request.memory_bytes, request.cpu_s)
    answers.write(msgspec.json.encode(_try(Path(request.folder))))
    answers.close()


def _try(folder: Path) -> ProbeAnswer:
    try:
        return ProbeAnswer(faults(Bundle.open(folder, verify=True)))
    except ImportError as error:
        return ProbeAnswer(missing=str(error))
    except BundleError as error:
        return ProbeAnswer([str(error)])
    except MemoryError:
        return ProbeAnswer(["it needs more memory than a bundle of its size may"])
    except BaseException as error:  # whatever else a bundle can cause, a panic included
        return ProbeAnswer([f"opening it failed: {type(error).__name__}: {error!s:.300}"])


if __name__ == "__main__":
    main()
