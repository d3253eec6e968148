"""What one night's retraining starts from: the active release, the new catalog, the events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.runtime.clock import OLDEST_MS, Clock
from sanderling_quantize.encoders.tokenization import load_tokenizer
from sanderling_quantize.readability import measure
from sanderling_trainer.data.attribute_values import check_same_kinds, known_types
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.schema import Attribute, Attributes, find_schema
from sanderling_trainer.data.tables import read_catalog, read_interactions
from sanderling_trainer.event_log.deduplication import PossibleTimes
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.jobs.lease import BusyError
from sanderling_trainer.jobs.lessons import Lessons, lessons_of
from sanderling_trainer.jobs.night_log import NightLog, Vocabulary, read_night, remember
from sanderling_trainer.jobs.past_interactions import PastInteractions
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.jobs.trust import anomalies, believed
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint
from sanderling_trainer.policy.living_catalog import CatalogChange, change_between, with_catalog
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.device import torch_device
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.language_model_files import check_readable

TRAIN_ANEW = (
    "train a policy with a multilingual model (`sanderling train --language-model`,"
    " docs/LANGUAGES.md), or one that goes on with such texts (--train-anyway)"
)

MAX_AGE_DAYS = 365
"""An event that is older than the end of the checkpoint's log by more has a wrong time."""


@dataclass(frozen=True)
class NightInputs:
    """All that decides what a night learns."""

    source: Path
    """Folder of the active release's checkpoint."""

    options: RetrainOptions

    active: Checkpoint
    """The active release, as it is served."""

    change: CatalogChange
    """From the active release's catalog to the new one."""

    renewed: Checkpoint
    """The active release with the new catalog."""

    log: NightLog

    lessons: Lessons

    past: PastInteractions

    notes: list[str]
    """What a person should know about the inputs, a line each."""

    @staticmethod
    def read(events: str, source: Path, options: RetrainOptions, clock: Clock) -> NightInputs:
        """Read everything, and extend the store's history by what is new in the log.

        Raises `LanguageModelError` before that for new texts that the checkpoint's language model
        cannot read.
        """
        torch_device(options.device)  # raises before the log is read
        active = checkpoint.load(source)
        metadata = active.metadata
        catalog = active.catalog
        if options.items is not None:
            catalog = read_catalog(options.items, options.tables, _known_types(active, options))
            table = getattr(options.items, "name", str(options.items))
            before = active.catalog
            check_same_kinds(
                table, before.records, catalog.records, before.attributes, metadata.release
            )
        change = change_between(active.catalog, catalog)
        texts = {"items": catalog.texts} if change else {}
        latest = clock.wall_ms() // 1000 + DAY
        earlier = None  # read before the events, so that a wrong table is named at once
        if options.interactions is not None:
            types = {name: Attribute(**each) for name, each in metadata.context.items()}
            earlier = read_interactions(
                options.interactions,
                catalog,
                latest,
                keep_unknown=True,
                options=options.tables,
                context=types,
            )
            texts["contexts"] = [text for text in earlier.contexts if text]
        _check_readable(source, active.config, texts)

        text_dim = active.network.text.shape[1]
        widths = text_dim, active.network.contexts.shape[1] - text_dim
        removed = frozenset(change.removed)
        vocabulary = Vocabulary(catalog.ids, removed, metadata.kinds, *widths)
        log = read_night(events, vocabulary, _possible_times(metadata.log_to, clock))
        log = replace(log, examples=believed(log.examples, metadata, active.config))
        notes = _notes(change, log)
        try:
            remember(open_store(events, JOB_TIMEOUT), clock, log.new_rows)
        except BusyError as error:
            notes.append(f"the store's history was not extended, the next run does it: {error}")

        past = PastInteractions.none()
        if earlier is not None:
            devices_from = metadata.devices_from or log.summary.earliest // 1000
            past = PastInteractions.before_devices(earlier, metadata.kinds, devices_from, latest)
        renewed = active
        if change:
            encode = Encoder(source, active.config.max_tokens, options.device)
            renewed = with_catalog(
                active, catalog, change, lambda texts: encode(active.config.item_texts(texts))
            )
        lessons = lessons_of(log, metadata, active.watermark, options.days)
        return NightInputs(source, options, active, change, renewed, log, lessons, past, notes)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides the result."""
        digest = hashlib.sha256(self.log.summary.sha256().encode())
        digest.update(json.dumps(self.options.numbers(), sort_keys=True).encode())
        catalog = self.renewed.catalog
        digest.update(json.dumps([catalog.ids, catalog.texts, catalog.records]).encode())
        for name, vectors in catalog.vectors.items():
            digest.update(name.encode() + vectors.tobytes())
        digest.update(self.past.sha256.encode())
        for path in (self.source / "config.json", self.source / checkpoint.WATERMARK):
            if path.exists():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def counts(self) -> dict[str, Any]:
        """Return what was found, for `metrics.json`."""
        lessons = self.lessons
        new_events = sum(len(part) - part.n_replayed for part in lessons.new_parts)
        return {
            "log": asdict(self.log.summary) | {"dropped": dict(self.log.examples.dropped)},
            "anomalies": anomalies(
                self.log.examples, self.renewed.catalog.ids, self.log.summary.events_of
            ),
            "catalog": self.change.counts() | {"removed_shown": len(self.log.shown_removed)},
            "lessons": {
                "new_decisions": lessons.new,
                "new_events": new_events,
                "events_in_the_first_log": lessons.known,
                "judging_decisions": len(lessons.judging),
                "judging_installs": lessons.judges,
                "waiting_installs": lessons.waiting,
            },
            "interactions": {
                "events": self.past.events,
                "reported_by_devices": self.past.reported_by_devices,
                "unknown_items": self.past.unknown_items,
            },
        }


def _known_types(active: Checkpoint, options: RetrainOptions) -> Attributes:
    """Return the types of attributes that the new catalog is held to."""
    schema = find_schema(options.items, options.schema)
    before, release = active.catalog.attributes, active.metadata.release
    return known_types(schema.items, before, release, schema.name)


class Encoder:
    """Encodes texts with a checkpoint's language model, which is loaded when it is needed."""

    def __init__(self, source: Path, max_tokens: int, device: str) -> None:
        self._folder = str(source / "encoder")
        self._max_tokens = max_tokens
        self._device = device

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors float32 [n, t] of n texts."""
        return LanguageModel(self._folder, self._max_tokens, self._device).encode(texts)


def _check_readable(source: Path, config: Config, texts: Mapping[str, Sequence[str]]) -> None:
    """Raise `LanguageModelError` where a checkpoint's language model cannot read new texts, unless
    it was trained with `train_anyway`."""
    if config.train_anyway or not texts:
        return
    tokenizer = load_tokenizer(str(source / "encoder")).backend_tokenizer
    found = {name: measure(tokenizer, each) for name, each in texts.items()}
    check_readable(str(source), found, TRAIN_ANEW)


def _possible_times(log_to: int, clock: Clock) -> PossibleTimes:
    """Return when an event can have happened, given the end of the checkpoint's log in seconds."""
    return PossibleTimes(
        max(OLDEST_MS, 1000 * (log_to - MAX_AGE_DAYS * DAY)), clock.wall_ms() + 1000 * DAY
    )


def _notes(change: CatalogChange, log: NightLog) -> list[str]:
    """Return a line for each thing in catalog and log that may be a mistake."""
    counted = {
        f"of {len(change.removed)} items that --items lacks were shown to users; all"
        f" {len(change.removed)} count as removed": len(log.shown_removed),
        "kept items have no word of their text before; they keep what was learned, so give another"
        " item another id": change.rewritten,
        "items have neither text nor attributes; their id stands for a text": change.without_text,
        "events have times years off, of wrong clocks; they count when they were received": (
            log.summary.misdated
        ),
    }
    return [f"{count} {what}" for what, count in counted.items() if count]
