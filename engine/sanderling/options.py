"""The options of an engine: one dataclass with a docstring under each field, checked when it is
made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, TypedDict

from sanderling.errors import shown
from sanderling.runtime.clock import Clock, Entropy, SystemEntropy
from sanderling.upload.transport import HttpTransport, Transport
from sanderling.upload.uploader import always

MIN_PRIVACY_EPSILON = 0.1
"""Bits are then flipped with probability 0.475; with less, nothing could be estimated."""

MAX_PRIVACY_EPSILON = 20.0
"""Bits are then flipped with probability 2e-9; more would protect nothing."""

MAX_WINDOW_S = 366 * 86_400
"""A year."""

MIN_PSEUDONYM_DAYS = 1 / 24
"""An hour."""

MAX_PSEUDONYM_DAYS = 3660.0
"""Ten years."""

MIN_OUTBOX_BYTES = 2**16
"""64 KiB: room for the empty tables and some decisions."""

MAX_OUTBOX_BYTES = 2**50
"""1 PiB: more is a mistake in the unit."""

FLAGS = ("share_context", "adapt", "background", "verify")


class OptionTypes(TypedDict, total=False):
    """The types of the keyword arguments of `Engine.open`, for type checkers and editors.

    What each one means is documented once, at `EngineOptions`.
    """

    releases: str | None
    root: bytes | str | Path | None
    share_context: bool
    adapt: bool
    privacy: float | None
    window_s: float | None
    pseudonym_days: float | None
    may_upload: Callable[[], bool]
    transport: Transport | None
    outbox_bytes: int
    background: bool
    verify: bool
    child_command: Sequence[str] | None
    clock: Clock | None
    entropy: Entropy


@dataclass(frozen=True)
class EngineOptions:
    """How an engine stores, uploads, explores and learns.

    Raises `TypeError` for a value of a wrong type, `ValueError` for one out of range and for
    options that exclude or need each other.
    """

    state: str | Path | None = None
    """The state folder, for this engine alone. Without it nothing is stored and no reward is
    accepted. While another engine holds it, this one recommends from the last confirmed release and
    changes nothing there."""

    collector: str | None = None
    """URL of the collector to which events are posted."""

    token: str | None = None
    """The bearer token of this device for the collector."""

    releases: str | None = None
    """URL of the signed release repository that `Engine.update` reads."""

    root: bytes | str | Path | None = None
    """The repository's trusted root metadata: its bytes, or the path of a file."""

    share_context: bool = False
    """Whether context vectors may leave the device with decisions."""

    adapt: bool = False
    """Learn a small correction of each user's vector from that user's rewards. It stays on the
    device."""

    privacy: float | None = None
    """The ε of randomized response, 0.1 to 20. Each reward is reduced to a click or none and
    flipped with probability 1 / (1 + e^ε); training corrects the mean. Such rewards do not update
    the user's state, which would reveal them. Reward all seen items of a slate in one call: which
    items were rewarded, and when, is not hidden. For the same reason it excludes `adapt` and
    `window_s`."""

    window_s: float | None = None
    """How many seconds after a decision its rewards are awaited, at most 366 days. An item that was
    passed to `seen` and has no reward by then counts as not clicked."""

    pseudonym_days: float | None = None
    """After how many days this install takes a new id and its users new pseudonyms: 1/24 to 3660.
    It happens as soon as everything is uploaded. Nothing links old and new; states and residuals
    start empty, open reward windows get their default outcomes first, and slates from before can no
    longer be rewarded. Needs `state`, and `collector` or `transport`."""

    may_upload: Callable[[], bool] = always
    """Called before each batch; return False to wait, for example until the device is idle,
    charging or unmetered. One that raises counts as False. In the background uploading resumes
    within a minute of the first True."""

    transport: Transport | None = None
    """Carries batches instead of HTTP to `collector`."""

    outbox_bytes: int = 64 * 2**20
    """The size of the outbox, 64 KiB to 1 PiB. Beyond it whole decisions are shed."""

    background: bool = True
    """Whether threads write and upload. Without them the app calls `Engine.step`, and `reward`
    writes by itself."""

    verify: bool = False
    """Check the bundle when opening it: the hash of every file, all values, and, in a child process
    with limits of memory and time, encoder, tokenizer and golden vectors. Takes about a second."""

    child_command: Sequence[str] | None = None
    """What starts a child process, for `update` and `verify`; the name of a module of ours is added
    to it. Needed where the app is frozen into one file: see `sanderling.run_child`. The Python that
    runs the app unless given."""

    clock: Clock | None = None
    """Wall and monotonic time; the system's clocks unless given."""

    entropy: Entropy = field(default_factory=SystemEntropy)
    """Source of random bytes for ids, secrets and exploration."""

    def __post_init__(self) -> None:
        """Check what can be checked before anything is opened."""
        check_types(self)
        check_destination(self.collector, self.transport, self.state)
        check_privacy(self.privacy, adapt=self.adapt, window_s=self.window_s)
        check_window(self.window_s)
        uploads = self.collector is not None or self.transport is not None
        check_days(self.pseudonym_days, uploads=self.state is not None and uploads)
        check_bytes(self.outbox_bytes)

        # Scalars of numpy become numbers of Python: SQLite and JSON take no others.
        object.__setattr__(self, "outbox_bytes", int(self.outbox_bytes))
        for name in ("privacy", "window_s", "pseudonym_days"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))

    @property
    def folder(self) -> Path | None:
        """The state folder as a path."""
        return None if self.state is None else Path(self.state)

    def make_transport(self) -> Transport | None:
        """Return what carries batches, or None; raise `ValueError` for a bad collector URL."""
        if self.collector is None:
            return self.transport
        return HttpTransport(self.collector, self.token)

    def read_root(self) -> bytes | None:
        """Return the root metadata; raise `OSError` when its file cannot be read."""
        if self.root is None or isinstance(self.root, bytes):
            return self.root
        return Path(self.root).read_bytes()


def check_names(settings: Iterable[str]) -> None:
    """Raise `TypeError` unless all are names of options of `Engine.open`."""
    for name in settings:
        if name not in OptionTypes.__annotations__:
            similar = get_close_matches(name, OptionTypes.__annotations__, 1)
            hint = f"; did you mean `{similar[0]}`?" if similar else "; see `EngineOptions`"
            raise TypeError(f"{name}: expected an option of `Engine.open`, found no such one{hint}")


def check_types(options: EngineOptions) -> None:
    """Raise `TypeError` for an option of a wrong type; numbers are checked with their ranges."""
    expected: dict[str, tuple[str, tuple[type, ...]]] = {
        "state": ("a path", (str, PathLike, NoneType)),
        "collector": ("str", (str, NoneType)),
        "token": ("str", (str, NoneType)),
        "releases": ("str", (str, NoneType)),
        "root": ("bytes or a path", (bytes, str, PathLike, NoneType)),
        **dict.fromkeys(FLAGS, ("True or False", (bool,))),
    }
    for name, (what, types) in expected.items():
        value = getattr(options, name)
        if not isinstance(value, types):
            raise TypeError(f"{name}: expected {what}, found {type(value).__name__}")

    for name in ("may_upload", "entropy"):
        if not callable(getattr(options, name)):
            found = type(getattr(options, name)).__name__
            raise TypeError(f"{name}: expected a function, found {found}")

    command = options.child_command
    if isinstance(command, str) or not all(isinstance(part, str) for part in command or ()):
        raise TypeError(f"child_command: expected a list of texts, found {command!r:.80}")
    if options.transport is not None and not callable(getattr(options.transport, "post", None)):
        raise TypeError(
            f"transport: expected an object with `post`, found {type(options.transport).__name__}"
        )


def check_destination(collector: object, transport: object, state: object) -> None:
    """Raise `ValueError` when both a collector and a transport are given, or one without a state
    folder."""
    if collector is not None and transport is not None:
        raise ValueError(
            "transport: expected either `collector` or `transport`, found both: leave one out"
        )
    if state is None and (collector is not None or transport is not None):
        name = "transport" if collector is None else "collector"
        raise ValueError(
            f"{name}: expected `state` with it, found none: without a state folder nothing is"
            " stored, so nothing could be sent; pass state='state/'"
        )


def check_privacy(epsilon: object, *, adapt: bool, window_s: object) -> None:
    """Raise `ValueError` unless ε is None or in range, and nothing else would reveal the rewards;
    `TypeError` for no number."""
    if epsilon is None:
        return
    if adapt or window_s is not None:
        raise ValueError(
            "privacy: expected neither `adapt` nor `window_s` with it, found one: later slates, or"
            " the times of outcomes, would reveal the rewards that it hides"
        )
    if not _is_within("privacy", epsilon, MIN_PRIVACY_EPSILON, MAX_PRIVACY_EPSILON):
        raise ValueError(
            f"privacy: expected an epsilon of {MIN_PRIVACY_EPSILON:g} to {MAX_PRIVACY_EPSILON:g},"
            f" or None, found {shown(epsilon)}"
        )


def check_window(seconds: object) -> None:
    """Raise `ValueError` unless the length of a reward window is None or in (0, 366 days]."""
    if seconds is None:
        return
    if not _is_within("window_s", seconds, 0.0, MAX_WINDOW_S) or seconds == 0:
        raise ValueError(
            f"window_s: expected seconds above 0, at most 366 days, or None, found {shown(seconds)}"
        )


def check_days(days: object, *, uploads: bool) -> None:
    """Raise `ValueError` unless the life of a pseudonym is None or in range, and events are
    uploaded."""
    if days is None:
        return
    if not _is_within("pseudonym_days", days, MIN_PSEUDONYM_DAYS, MAX_PSEUDONYM_DAYS):
        raise ValueError(
            f"pseudonym_days: expected 1/24 to 3660 days, or None, found {shown(days)}"
        )
    if not uploads:
        raise ValueError(
            "pseudonym_days: expected `state`, and `collector` or `transport`, with it:"
            " otherwise no pseudonym leaves the device"
        )


def check_bytes(limit: object) -> None:
    """Raise `ValueError` unless the size of the outbox is 64 KiB to 1 PiB, `TypeError` for no
    int."""
    if isinstance(limit, bool) or not isinstance(limit, Integral):
        raise TypeError(f"outbox_bytes: expected an int, found {type(limit).__name__}")
    if not _is_within("outbox_bytes", limit, MIN_OUTBOX_BYTES, MAX_OUTBOX_BYTES):
        raise ValueError(
            f"outbox_bytes: expected an int of {MIN_OUTBOX_BYTES} to {MAX_OUTBOX_BYTES},"
            f" found {shown(limit)}"
        )


def _is_within(name: str, value: object, at_least: float, at_most: float) -> bool:
    """Return whether a number, of Python or numpy, is within bounds; raise `TypeError` for what is
    none, as True and False."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, found {type(value).__name__}")
    number: Any = value
    return bool(at_least <= number <= at_most)
