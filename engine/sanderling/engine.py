"""The engine: what an app holds. It joins the bundle that serves, what is known of people, the outbox and the uploader,
and owns the order between them.

`recommend` never waits for disk or network and never raises for what a user did; `reward` returns when the reward is
durable. Refuses to know how any of its parts does its work.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from sanderling.arguments import (
    check_bytes,
    check_caps,
    check_days,
    check_privacy,
    check_request,
    check_text,
    check_value,
    check_way,
    check_window,
    shown_item,
)
from sanderling.bundle.manifest import Exploration
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, UpdateError
from sanderling.outbox.folder_lock import FolderLock
from sanderling.outbox.outbox import Outbox
from sanderling.ranking import catalog_overlay
from sanderling.ranking import decision as decisions
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.scorer import NO_CAPS, Scorer, Vector
from sanderling.releases.active_bundle import ActiveBundle
from sanderling.releases.updater import fetch
from sanderling.runtime.clock import Clock, Entropy, SystemClock, uuid7
from sanderling.slate import Explanation, Receipt, Slate, SlateItem
from sanderling.upload.uploader import IDLE_S, HttpTransport, Transport, Uploader
from sanderling.users.event_factory import EventFactory
from sanderling.users.profiles import UserProfiles, UserSnapshot

log = logging.getLogger("sanderling")

REWARD_TIMEOUT_S = 10.0


class Engine:
    """A recommender in the app's own process. Thread-safe. Use `Engine.open`, and close it, or use `with`.

    Do not call the engine from a signal handler: set a flag there and call it from your own code. After a fork only the
    parent may use it: in the child `close` does nothing and all else raises `RuntimeError`; open another engine there,
    with another state folder.

    `exploring` may be set to False at any time: from the next slate on, the best items are shown. (For a whole fleet,
    release a bundle with epsilon 0.)
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        state: Path | None,
        collector: str | None,
        token: str | None,
        releases: str | None,
        root: bytes | None,
        share_context: bool,
        adapt: bool,
        privacy: float | None,
        window_s: float | None,
        pseudonym_days: float | None,
        may_upload: Callable[[], bool],
        transport: Transport | None,
        outbox_bytes: int,
        background: bool,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._clock, self._entropy = clock, entropy
        self._releases, self._root, self._folder = releases, root, state
        self._window_s, self._pseudonym_days = window_s, pseudonym_days
        self._closed, self._process = False, os.getpid()
        self.storage_fault: str | None = None
        self.exploring = True
        if collector is not None:
            transport = HttpTransport(collector, token)
        self._outbox = self._open_outbox(outbox_bytes, background)
        self._claim = self._take_folder()
        try:
            self._serves = ActiveBundle(
                bundle, state, holds=self._outbox is not None or self._claim is not None
            )
        except BaseException:
            self._let_go(0.0)
            raise
        tell = partial(EventFactory, entropy=entropy, share_context=share_context, privacy=privacy)
        self._make_profiles = partial(
            UserProfiles,
            self._outbox,
            tell,
            adapts=adapt,
            window_s=window_s,
            clock=clock,
            entropy=entropy,
        )
        self._profiles, self._profiles_lock = self._make_profiles(), Lock()
        self._uploader = self._open_uploader(transport, may_upload, background)
        self._tick()

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        state: str | Path | None = None,
        collector: str | None = None,
        token: str | None = None,
        *,
        releases: str | None = None,
        root: bytes | str | Path | None = None,
        share_context: bool = False,
        adapt: bool = False,
        privacy: float | None = None,
        window_s: float | None = None,
        pseudonym_days: float | None = None,
        may_upload: Callable[[], bool] = lambda: True,
        transport: Transport | None = None,
        outbox_bytes: int = 64 * 2**20,
        background: bool = True,
        verify: bool = False,
        clock: Clock | None = None,
        entropy: Entropy = os.urandom,
    ) -> Engine:
        """Open the bundle that the app ships, or a newer one that was installed since.

        - `state`: a folder that this engine alone uses; without it nothing is stored and no reward can be given. While
          another engine holds it this one recommends, from the last release that proved itself, and changes nothing.
        - `collector`, `token`: where events are posted in the background; `may_upload` is asked before each batch: is
          the device idle, charging, unmetered, whatever the app cares for.
        - `releases`, `root`: URL of the signed releases that `update` reads, and their root metadata, bytes or a file.
        - `share_context`: context vectors may leave the device.
        - `adapt`: learn a small correction of each user's vector from that user's own rewards; it stays on the device.
        - `privacy`: the ε of randomised response: each reward is told as a click or none, and flipped with
          probability 1 / (1 + e^ε); it then moves no state, which would tell, and the lab corrects the mean. Reward all
          seen items of a slate in one call: that only some are told of, or when, tells something too. Not together with
          `adapt` or `window_s`, which would tell.
        - `window_s`: how many seconds after a decision its rewards are waited for; what was `seen` and not rewarded by
          then counts as not clicked.
        - `pseudonym_days`: after so many days, and as soon as all is uploaded, this install takes a new id and its
          users new pseudonyms. Nothing links them to the old ones; states and what `adapt` learned start empty, open
          reward windows get their default outcomes first, and slates from before can no longer be rewarded.
        - `transport`: another way to the lab than HTTP to `collector`.
        - `outbox_bytes`: how much may wait on the disk before whole decisions are shed.
        - `background`: threads write and send; without them the app calls `step`, and `reward` writes by itself.
        - `verify`: check every byte of the bundle, not only its shape.

        Raises `BundleError` when the bundle does not open, `ValueError` for a setting that makes no sense.
        """
        check_way(collector, transport)
        return cls(
            Bundle.open(bundle, verify=verify),
            state=Path(state) if state is not None else None,
            collector=collector,
            token=token,
            releases=releases,
            root=root if isinstance(root, bytes | None) else Path(root).read_bytes(),
            share_context=share_context,
            adapt=adapt,
            privacy=check_privacy(privacy, adapt=adapt, window_s=window_s),
            window_s=check_window(window_s),
            pseudonym_days=check_days(
                pseudonym_days, told=None not in (state, collector or transport)
            ),
            may_upload=may_upload,
            transport=transport,
            outbox_bytes=check_bytes(outbox_bytes),
            background=background,
            clock=clock or SystemClock(),
            entropy=entropy,
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def release(self) -> int:
        """The release that serves now."""
        return self._serving.release

    def recommend(
        self,
        user: str,
        k: int = 10,
        context: str | None = None,
        exclude: Iterable[str] = (),
        *,
        at_most: Mapping[str, int] = NO_CAPS,
        greedy: bool = False,
    ) -> Slate:
        """Return a slate of at most k items for a user, known or not; fewer when fewer are eligible, or when their ids
        are so long that one event cannot tell of more: of 1000 items with ids of up to 66 bytes it always can.

        `context` is any text that says what is special about now. `exclude` holds item ids that must not be shown;
        unknown ones are ignored. `at_most` caps how many items may share a value of an attribute, of which each value
        counts where it is a list: `{"author": 2}`. It holds for the whole pool from which exploration draws; the first
        time an attribute is named, the whole catalogue is read (see `warm_up`). `greedy` switches exploration off for
        this slate. Raises `TypeError` for arguments of a wrong type and `ValueError` unless 1 <= k <= 1000 and caps are
        at least 1; never for what they say.
        """
        check_request(user, k, context)
        check_caps(at_most)
        asked = RecommendRequest(user, k, context, tuple(exclude), dict(at_most))
        now_ms = self._tick()
        scorer = self._serving.scorer
        try:
            return self._decide(scorer, asked, greedy, now_ms)
        except Exception as error:
            if scorer is self._serving.scorer and not self._serving.unproven:
                raise
            self._serving.abandon_release(scorer.bundle, error)
            return self._decide(self._serving.scorer, asked, greedy, now_ms)

    def observe(self, user: str, item: str, kind: str = "view") -> None:
        """Record organic behaviour: it moves the user's state at once, and is uploaded later."""
        check_text(user=user, item=item, kind=kind)
        self._tick()
        self._people.observe(user, item, kind, self._serving.scorer)

    def seen(self, slate: Slate, items: Iterable[SlateItem | str] | None = None) -> None:
        """Say which items of a slate the user saw, all unless given: what is not rewarded within the window counts -1.

        Nothing happens when the user was forgotten since. Raises `ValueError` for an item that is not on the slate, and
        where the engine was opened without `window_s`.
        """
        if self._window_s is None:
            raise ValueError(
                "seen: expected an engine opened with `window_s`, the time that rewards have to come"
            )
        shown = {item.id: item for item in slate}
        found = [shown_item(shown, item) for item in (shown if items is None else items)]
        now_ms = self._tick()
        self._people.see(slate, found, now_ms, self._serving.scorer)

    def reward(
        self,
        slate: Slate,
        item: SlateItem | str,
        value: float,
        kind: str | None = None,
        *,
        observe: bool | None = None,
    ) -> Receipt:
        """Record what became of one shown item. See `reward_all`."""
        return self.reward_all(slate, {item: value}, kind, observe=observe)

    def reward_all(
        self,
        slate: Slate,
        values: Mapping[SlateItem | str, float],
        kind: str | None = None,
        *,
        observe: bool | None = None,
    ) -> Receipt:
        """Record what became of the items of a slate that were seen; durable when the receipt says `stored`.

        Each value lies in [-1, 1]: 1 for a click, -1 for seen and not clicked. Items not named were not seen. `kind`
        is "click" for positive and "skip" for other values unless given. A click also moves the user's state, as
        `observe` would; pass `observe=False` if the app observes it itself. Trouble with the storage is told by the
        receipt and never raised. Raises `ValueError` for a value out of range, an item that is not on the slate, or a
        `kind` that is not of 1 to 512 whole characters.
        """
        if kind is not None:
            check_text(kind=kind)
        shown = {item.id: item for item in slate}
        seen = [(shown_item(shown, item), check_value(value)) for item, value in values.items()]
        seen.sort(
            key=lambda pair: pair[0].slot
        )  # an order of the app's own could tell what was touched first
        if self._outbox is None:
            return Receipt(False, f"the reward was not stored: {self.storage_fault}")
        now_ms = self._tick()
        try:
            wait = self._people.rewarded(slate, seen, kind, observe, now_ms, self._serving.scorer)
            wait(REWARD_TIMEOUT_S)
        except StorageError as error:
            return Receipt(False, str(error))
        if self._uploader:
            self._uploader.wake()
        return Receipt(True)

    def _tick(self) -> int:
        """Begin a public call: do what is due, and return the wall clock, which is read once a call."""
        now_ms = self._clock.wall_ms()
        self._people.tick(now_ms, self._serving.scorer)
        return now_ms

    def upsert_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add items (each with `id` and `text`, and any attributes) or replace known ones; recommendable at once.

        Raises `ValueError` naming the field that is wrong, `StorageError` where another engine holds the state folder;
        then nothing was added.
        """
        now_ms = self._tick()
        self._serving.change([catalog_overlay.addition(item, now_ms) for item in items])

    def remove_items(self, ids: Iterable[str]) -> None:
        """Never show these items again, whatever bundle comes, until `upsert_items` brings them back.

        Unknown ids are remembered too. Raises `ValueError` for what cannot be an id, `StorageError` where another
        engine holds the state folder; then nothing was removed.
        """
        now_ms = self._tick()
        self._serving.change([catalog_overlay.removal(item, now_ms) for item in ids])

    def explain(self, decision: str) -> Explanation:
        """Replay one of the last 256 decisions from its id, bit for bit. Raises `KeyError` for any other."""
        return decisions.explain(self._people.remembered(decision))

    def forget_user(self, user: str) -> None:
        """Delete all that this device knows of a user, to the last byte: states, and events that were not sent yet.

        What was uploaded before is erased by the collector's side, by install. The user may come back, as a stranger.
        Raises `StorageError` when the file could not be changed; then nothing is promised.
        """
        check_text(user=user)
        self._people.forget(user)
        if self._outbox is None and self._folder is not None:
            raise StorageError(f"nothing of the file was forgotten: {self.storage_fault}")

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Upload what is stored; return whether all of it was acknowledged within the time.

        A wait that a failure has begun is kept to: then it returns False at once, and sends nothing.
        """
        self._tick()
        if self._outbox:
            self._outbox.work()
        return self._uploader.drain(timeout_s) if self._uploader else False

    def step(self) -> float:
        """Without `background`, do what its threads would: write what is queued, send at most one batch.

        Return the seconds to wait before the next step.
        """
        self._tick()
        if self._outbox:
            self._outbox.work()
        return self._uploader.step() if self._uploader else IDLE_S

    def update(self, timeout_s: float = 900.0) -> int | None:
        """Fetch, verify and swap in the newest release; return its number, or None when there is none newer.

        Between two requests the old bundle serves, after that the new one; if its first decision fails the engine goes
        back by itself. Raises `UpdateError` when fetching or verifying failed, or another engine holds the state
        folder; the old bundle goes on serving.
        """
        releases, root = self._releases, self._root
        if releases is None or root is None:
            raise UpdateError("expected an engine opened with `state`, `releases` and `root`")
        return self._serving.update(
            lambda slots, serving: fetch(
                releases,
                root,
                slots.folder,
                app=serving.manifest.app,
                current_release=serving.manifest.release,
                install=self._people.identity.install,
                serving=serving.folder,
                timeout_s=timeout_s,
            )
        )

    def rollback(self) -> int:
        """Go back to the bundle before; the present release is never tried again. Return the number that serves now.

        Raises `StorageError` where that cannot be noted: the bundle before serves, for as long as this engine runs.
        """
        self._serving.go_back("asked by the app")
        return self.release

    def warm_up(self, attributes: Iterable[str] = ()) -> None:
        """Do now what the first recommendation would wait for: kernels, tables, and the groups of these attributes."""
        self._serving.scorer.warm_up(attributes)

    def counters(self) -> dict[str, Any]:
        """Return what is stored, acknowledged and lost, for the app's own monitoring."""
        return {
            "release": self.release,
            "storage_fault": self.storage_fault,
            "outbox": self._outbox.counters() if self._outbox else None,
            "upload": self._uploader.counters if self._uploader else None,
        }

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and stop the threads; unsent events stay stored. Closing twice is harmless."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        if self._uploader:
            self._uploader.stop(timeout_s)
        self._serving.close(timeout_s)
        self._let_go(timeout_s)

    def _decide(self, scorer: Scorer, asked: RecommendRequest, greedy: bool, now_ms: int) -> Slate:
        people = self._people
        known = people.known(asked.user, now_ms, scorer)
        plan = self._plan(scorer, known, greedy)
        context = self._encode_context(scorer, asked.context)
        vector = scorer.user_model.user_vector(known.state.state, context)
        if known.shift is not None:
            vector = vector + known.shift.astype("float32")
        decision = uuid7(now_ms, self._entropy)
        made = decisions.decide(
            scorer, vector, plan, asked, decision, known.state.name, known.shift
        )
        if made.slate.items:
            people.decided(made, known.state, context, now_ms)
        self._serving.confirm(scorer.bundle)
        return made.slate

    def _plan(self, scorer: Scorer, known: UserSnapshot, greedy: bool) -> Exploration:
        """Return how this decision explores: as the bundle says, unless somebody or the user's budget forbids it."""
        plan = scorer.bundle.manifest.exploration
        spent = plan.daily is not None and known.explored >= plan.daily
        return scorer.greedy if greedy or spent or not self.exploring else plan

    def _encode_context(self, scorer: Scorer, context: str | None) -> Vector | None:
        if not context:
            return None
        try:
            return scorer.encoder.encode(context)
        except Exception as error:  # whatever it was, a slate without context is better than none
            log.warning("context ignored: %s", error)
            return None

    def _open_outbox(self, limit_bytes: int, threaded: bool) -> Outbox | None:
        if self._folder is None:
            self.storage_fault = "the engine was opened without a state folder"
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return Outbox(
                self._folder,
                limit_bytes=limit_bytes,
                clock=self._clock,
                entropy=self._entropy,
                threaded=threaded,
            )
        except (StorageError, OSError) as error:
            self.storage_fault = str(error)
            log.error("nothing can be stored, recommending goes on: %s", error)
            return None

    def _take_folder(self) -> FolderLock | None:
        """Hold the state folder without an outbox, unless another engine does: then that one decides what serves."""
        if self._outbox is not None or self._folder is None:
            return None
        try:
            return FolderLock(self._folder)
        except StorageError:
            return None

    def _let_go(self, timeout_s: float) -> None:
        if self._outbox:
            self._outbox.close(timeout_s)
            self._outbox, self.storage_fault = None, "the engine is closed"
        if self._claim:
            self._claim.close()

    def _open_uploader(
        self, transport: Transport | None, may_upload: Callable[[], bool], background: bool
    ) -> Uploader | None:
        if transport is None or self._outbox is None:
            return None
        uploader = Uploader(
            self._outbox,
            transport,
            clock=self._clock,
            rng=random.Random(self._entropy(8)),
            may_upload=may_upload,
            on_empty=self._rest,
            on_rotate=lambda: self._people.request_rotation(),
        )
        if background:
            uploader.start()
        return uploader

    def _check_process(self) -> None:
        """Raise `RuntimeError` in a forked child: its copies of the locks may be held by threads that it lacks."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "expected the process that opened this engine, found a fork of it:"
                " open another engine here, with another state folder"
            )

    @property
    def _serving(self) -> ActiveBundle:
        """What serves. Every call of the app needs this or `_people`, so they check the process."""
        self._check_process()
        return self._serves

    @property
    def _people(self) -> UserProfiles:
        """What is known of people under the present name: after an erasure, or a renaming, nobody."""
        self._check_process()
        outbox = self._outbox
        if outbox is not None and outbox.install != self._profiles.identity.install:
            with self._profiles_lock:
                if outbox.install != self._profiles.identity.install:
                    self._profiles = self._make_profiles()
        return self._profiles

    def _rest(self) -> None:
        """Do what may wait until all is uploaded: overwrite what was deleted, and take another name where that is due.

        What becomes due here is uploaded under the old name first; the renaming follows when that is acknowledged.
        """
        outbox = self._outbox
        if outbox is None:
            return

        outbox.scrub_left()
        now_ms = self._clock.wall_ms()
        if self._people.should_rotate(self._pseudonym_days, now_ms, self._serving.scorer):
            outbox.rotate_identity()
