"""The manifest of a bundle: which files it has, what they are, and how the device uses them.

`docs/BUNDLE.md` describes the format for readers in other languages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sanderling.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_POOL = 10_000
REST = "rest"
"""The name of the installs that are in no arm."""
ROUNDING = 1e-9
MAX_ID = 512
"""Characters of an item's id, at most: events take no longer ones."""
MAX_PREFIX = 64
"""Characters of a prefix, at most."""
APP_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
FILES = (
    "encoder.onnx",
    "tokenizer.json",
    "policy.safetensors",
    "items.safetensors",
    "catalog.jsonl",
    "golden.json",
)
OPTIONAL_FILES = ("columns.safetensors",)

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest; unknown fields, NaN, and booleans in place of numbers are errors."""


class FileEntry(_Strict, frozen=True):
    """One file of the bundle."""

    length: Natural
    """In bytes, exactly."""

    sha256: Sha256
    """In lower-case hex."""


class Sizes(_Strict, frozen=True):
    """The sizes by which readers check the tensors' shapes."""

    items: Positive
    """Items n."""

    dim: Positive
    """Dimension d of the items' vectors."""

    state: Positive
    """Channels c of a user's state."""

    text: Positive
    """Dimension t of the encoder's vectors."""

    max_tokens: Annotated[int, msgspec.Meta(ge=8, le=8192)]
    """Tokens of a text beyond which it is cut."""


class Exploration(_Strict, frozen=True, omit_defaults=True):
    """How the device explores."""

    scheme: Literal["sequential", "mixture", "softmax"] = "sequential"
    """The scheme of `sanderling.exploration.schemes` that draws slates."""

    epsilon: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.1
    """The share of slots (`sequential`) or of slates (`mixture`) that explore."""

    pool: Annotated[int, msgspec.Meta(ge=1, le=MAX_POOL)] = 50
    """The number M of best items among which a slate is drawn."""

    temperature: Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)] = 1.0
    """Of `softmax`: by which scores are divided."""

    guarded: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """The first slots, which always show the best items."""

    daily: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    """Explored slots per user and day (UTC), after which slates are greedy. None: no limit."""

    newcomers: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.3
    """The share of explored slots that show a newcomer, while there are newcomers outside the pool:
    `epsilon` times this is the share of slots, under `softmax` too."""


class Prefixes(_Strict, frozen=True, omit_defaults=True):
    """What the encoder reads before a text, as some language models were trained with."""

    item: Annotated[str, msgspec.Meta(max_length=MAX_PREFIX)] = ""
    """Before the text of an item."""

    query: Annotated[str, msgspec.Meta(max_length=MAX_PREFIX)] = ""
    """Before a context or a search."""


class Arm(_Strict, frozen=True, omit_defaults=True):
    """What the installs of one arm of an experiment get."""

    name: Annotated[str, msgspec.Meta(pattern=APP_NAME)]
    """On each decision, and on each slate."""

    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    """Of all installs."""

    exploration: Exploration | None = None
    """How they explore; None: as the bundle says."""

    personalized: bool = True
    """Whether slates follow from the user. If not, all users have those of an item's popularity
    alone, its bias: what there would be without a recommender."""


class Experiment(_Strict, frozen=True):
    """A comparison of arms, to which installs are assigned by a hash of their ids."""

    name: Annotated[str, msgspec.Meta(pattern=APP_NAME)]
    """Another name assigns all installs anew."""

    arms: Annotated[tuple[Arm, ...], msgspec.Meta(min_length=1, max_length=16)]
    """The rest of the installs, if there is one, gets what the bundle says."""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names) or REST in names:
            raise ValueError(f"arms: expected distinct names other than {REST!r}, found {names}")
        if sum(self.shares) > 1.0 + ROUNDING:
            raise ValueError(f"arms: expected shares of 1 together, found {sum(self.shares):g}")

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the arms, in their order."""
        return tuple(arm.share for arm in self.arms)


class Rules(_Strict, frozen=True, omit_defaults=True):
    """What holds for every request of the app, in the form of `Engine.recommend`'s arguments."""

    where: dict[str, Any] = {}
    """A rule that items must meet; none if empty."""

    at_most: dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)],
        Annotated[int, msgspec.Meta(ge=1, le=MAX_POOL)],
    ] = {}
    """Caps by attribute."""

    boost: list[dict[str, Any]] = []
    """Boosts, each with `where` and `by`."""

    diversity: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    """Where a request has none of its own."""


class Lineage(_Strict, frozen=True):
    """What the policy was learned from."""

    parent: Natural
    """The release whose policy it continues, 0 for none."""

    log_from: int
    """Start of the log, in seconds since 1970."""

    log_to: int
    """End of the log, in seconds since 1970."""

    data_sha256: Sha256
    """The hash of the training data."""


class Manifest(_Strict, frozen=True):
    """The content of manifest.json."""

    app: Annotated[str, msgspec.Meta(pattern=APP_NAME)]
    """Whose bundle it is."""

    release: Positive
    """Rises with each release."""

    created: Natural
    """In seconds since 1970."""

    min_engine: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]
    """The oldest version of the engine that may open the bundle."""

    sizes: Sizes

    files: dict[str, FileEntry]
    """All files except the manifest itself, by name: `FILES`, and any of `OPTIONAL_FILES`."""

    exploration: Exploration

    kinds: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    """Kinds of event in the order of `state.kind`; the first stands for unknown kinds."""

    lineage: Lineage

    prefixes: Prefixes = Prefixes()

    experiment: Experiment | None = None
    """Arms that are compared; None for no experiment."""

    rules: Rules | None = None
    """What holds for every request; None for no rules."""

    reports: dict[str, Any] = {}
    """Figures of evaluation and gate, for people; no engine reads them."""

    schema: Literal[1] = 1


_decoder = msgspec.json.Decoder(Manifest)


def parse(data: bytes) -> Manifest:
    """Return the manifest in these bytes; raise `BundleError` that names the first wrong field."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST}: expected at most {MAX_MANIFEST_BYTES} bytes, found {len(data)}"
        )
    try:
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{MANIFEST}: {error}") from error
    differing = sorted(set(manifest.files) - set(OPTIONAL_FILES) ^ set(FILES))
    if differing:
        raise BundleError(
            f"{MANIFEST}: expected exactly the files {', '.join(FILES)}; "
            f"missing or not allowed: {differing}"
        )
    return manifest


def read(folder: Path) -> Manifest:
    """Return a bundle's manifest; raise `BundleError` when it is absent or malformed."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        is_checkpoint = (folder / "config.json").exists()
        raise BundleError(
            f"expected a bundle with a {MANIFEST} in {folder}, found no regular file of that name"
            + ("; this is a checkpoint: `sanderling quantize` it first" if is_checkpoint else "")
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"expected a bundle with a {MANIFEST} in {folder}: {error.strerror or error}"
        ) from error
    return parse(data)


def dump(manifest: Manifest) -> bytes:
    """Return the manifest's bytes, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def engine_version_fault(manifest: Manifest, version: str) -> str | None:
    """Return why an engine of this version may not open the bundle, or None."""
    needed = tuple(int(part) for part in manifest.min_engine.split("."))
    actual = tuple(int(part) for part in version.split(".")[:3])
    if actual >= needed:
        return None
    return (
        f"{MANIFEST}: min_engine: expected an engine of at least {manifest.min_engine}, "
        f"found {version}: update the app"
    )
