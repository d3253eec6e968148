"""The engine: what an app holds. It joins scoring, exploration, state and the outbox, and owns the order between them.

`recommend` never waits for disk or network and never raises for what a user did; `reward` returns when the reward is
durable. Refuses to know how any of its parts does its work.
"""

from __future__ import annotations

import base64
import hmac
import logging
import os
import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from threading import RLock, Thread
from typing import Any

from msgspec import UNSET, UnsetType

from sanderling import decisions, noise, overlay
from sanderling.adapt import Residuals
from sanderling.budget import Budget
from sanderling.checks import check_privacy, check_request, check_text, check_value, shown_item
from sanderling.clock import Clock, Entropy, SystemClock, uuid7
from sanderling.contract import events as wire
from sanderling.contract.bundle import Bundle
from sanderling.contract.manifest import Exploration
from sanderling.decisions import Asked, Made
from sanderling.errors import SanderlingError, StorageError, UpdateError
from sanderling.groups import check_caps
from sanderling.outbox import Outbox
from sanderling.scorer import NO_CAPS, Scorer, Vector
from sanderling.slate import Explanation, Receipt, Slate, SlateItem
from sanderling.slots import Slots
from sanderling.update import fetch
from sanderling.upload import HttpTransport, Uploader
from sanderling.users import Users, UserState

log = logging.getLogger("sanderling")

REMEMBERED = 256
REWARD_TIMEOUT_S = 10.0


class Engine:
    """A recommender in the app's own process. Thread-safe. Use `Engine.open`, and close it, or use `with`.

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
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._clock, self._entropy, self._share_context = clock, entropy, share_context
        self._adapts, self._privacy = adapt, privacy
        self._releases, self._root, self._folder = releases, root, state
        self._lock = RLock()  # guards users and memory; never held while waiting for the disk to write
        self._swapping = RLock()  # held by whoever replaces the scorer
        self._boot = entropy(16).hex()
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._closed = False
        self._confirming: Thread | None = None
        self.storage_fault: str | None = None
        self.exploring = True
        self._outbox = self._open_outbox()
        self._secret = self._outbox.secret if self._outbox else entropy(32)
        self._install = self._outbox.install if self._outbox else entropy(16).hex()
        self._slots = Slots(state / "bundles") if state else None
        self._given = bundle
        self._scorer = self._prepare(self._newest(bundle))
        self._unproven = (
            self._scorer.bundle is not bundle and not self._slots.state().confirmed if self._slots else False
        )
        self._pseudonym = lru_cache(maxsize=4096)(partial(_pseudonym_of, self._secret))
        load = self._outbox.state if self._outbox else lambda key: None
        self._users, self._budget, self._residuals = Users(load), Budget(load), Residuals(load)
        self._uploader = self._open_uploader(collector, token)

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
        verify: bool = False,
        clock: Clock | None = None,
        entropy: Entropy = os.urandom,
    ) -> Engine:
        """Open the bundle that the app ships, or a newer one that was installed since.

        `state` is a folder that this engine alone uses; without it nothing is stored and no reward can be given.
        `collector` is the URL under which events are posted in the background, with `token`. `releases` is the URL of
        the signed releases that `update` reads, and `root` their root metadata (bytes, or a file). `share_context`
        lets context vectors leave the device. `adapt` learns a small correction of each user's vector from that user's
        own rewards; it never leaves the device. `privacy` is the ε of randomised response: each reward is told as a
        click or none, and turned round with probability 1 / (1 + e^ε); it then moves no state, which would tell, and
        the lab corrects the mean. Raises `BundleError` when the bundle cannot be opened.
        """
        return cls(
            Bundle.open(bundle, verify=verify),
            state=Path(state) if state is not None else None,
            collector=collector,
            token=token,
            releases=releases,
            root=root if isinstance(root, bytes | None) else Path(root).read_bytes(),
            share_context=share_context,
            adapt=adapt,
            privacy=check_privacy(privacy),
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
        return self._scorer.bundle.manifest.release

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
        """Return a slate of at most k items for a user, known or not; fewer when fewer are eligible.

        `context` is any text that says what is special about now. `exclude` holds item ids that must not be shown;
        unknown ones are ignored. `at_most` caps how many items may share a value of an attribute, of which each value
        counts where it is a list: `{"author": 2}`. It holds for the whole pool from which exploration draws; the first
        time an attribute is named, the whole catalogue is read (see `warm_up`). `greedy` switches exploration off for
        this slate. Raises `TypeError` for arguments of a wrong type and `ValueError` unless 1 <= k <= 1000 and caps are
        at least 1; never for what they say.
        """
        check_request(user, k, context)
        check_caps(at_most)
        asked = Asked(user, k, context, tuple(exclude), dict(at_most))
        scorer = self._scorer
        try:
            return self._decide(scorer, asked, greedy)
        except Exception as error:
            if not self._unproven:
                raise
            log.exception("release %d failed on its first decision; going back", scorer.bundle.manifest.release)
            self._go_back(f"failed on its first decision: {error!r:.200}")
            return self._decide(self._scorer, asked, greedy)

    def observe(self, user: str, item: str, kind: str = "view") -> None:
        """Record organic behaviour: it moves the user's state at once, and is uploaded later."""
        check_text(user=user, item=item, kind=kind)
        with self._lock:
            pseudonym = self._pseudonym(user)
            state = self._users.observe(pseudonym, item, kind, self._scorer)
            event = wire.Observation(**self._stamp(), user=pseudonym, item=item, kind=kind)
            self._put([event], {pseudonym: state.dump()})

    def reward(
        self, slate: Slate, item: SlateItem | str, value: float, kind: str | None = None, *, observe: bool | None = None
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
        receipt and never raised. Raises `ValueError` for a value out of range or an item that is not on the slate.
        """
        shown = {item.id: item for item in slate}
        seen = [(shown_item(shown, item), check_value(value)) for item, value in values.items()]
        outbox = self._outbox
        if outbox is None:
            return Receipt(False, f"the reward was not stored: {self.storage_fault}")
        with self._lock:
            pseudonym = self._pseudonym(slate.user)
            states: dict[str, bytes] = {}
            outcomes = [self._outcome(slate, pseudonym, item, value, kind, observe, states) for item, value in seen]
            if self._adapts:
                states |= self._learn(pseudonym, slate.decision, dict(seen))
            try:
                wait = outbox.begin(outcomes, states)
            except StorageError as error:
                return Receipt(False, str(error))
        try:
            wait(REWARD_TIMEOUT_S)
        except StorageError as error:
            return Receipt(False, str(error))
        if self._uploader:
            self._uploader.wake()
        return Receipt(True)

    def _outcome(
        self,
        slate: Slate,
        pseudonym: str,
        item: SlateItem,
        value: float,
        kind: str | None,
        observe: bool | None,
        states: dict[str, bytes],
    ) -> wire.Event:
        """Return the event of one reward; where it moves the user's state, the new one is put into `states`."""
        moves = value > 0 if observe is None else observe
        turned: float | UnsetType = UNSET
        if self._privacy is not None:
            value = noise.told(value, self._secret, slate.decision, item.slot, self._privacy)
            kind, moves, turned = None, False, noise.chance(self._privacy)
        name = kind or ("click" if value > 0 else "skip")
        if moves:
            states[pseudonym] = self._users.observe(pseudonym, item.id, name, self._scorer).dump()
        return wire.Outcome(
            **self._stamp(),
            user=pseudonym,
            decision=slate.decision,
            slot=item.slot,
            item=item.id,
            kind=name,
            value=value,
            observed=moves,
            turned=turned,
        )

    def _learn(self, pseudonym: str, decision: str, rewards: Mapping[SlateItem, float]) -> dict[str, bytes]:
        """Move the user's residual by the rewards of a decision that is remembered; return what is to be stored."""
        made = self._made.get(decision)
        if made is None or made.scorer.space != self._scorer.space:
            return {}
        rank_of = {item.id: item.rank for item in made.slate}
        by_rank = {rank_of[item.id]: value for item, value in rewards.items() if item.id in rank_of}
        return self._residuals.learn(pseudonym, made.scorer.space, decisions.pool(made), made.ranking.scores, by_rank)

    def upsert_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add items (each with `id` and `text`, and any attributes) or replace known ones; recommendable at once.

        Raises `ValueError` naming the field that is wrong; then nothing was added.
        """
        self._change([overlay.clean(item, self._clock.wall_ms()) for item in items])

    def remove_items(self, ids: Iterable[str]) -> None:
        """Never show these items again, whatever bundle comes, until `upsert_items` brings them back.

        Unknown ids are remembered too. Raises `ValueError` for what cannot be an id; then nothing was removed.
        """
        self._change([overlay.removal(item, self._clock.wall_ms()) for item in ids])

    def _change(self, records: list[dict[str, Any]]) -> None:
        with self._swapping:
            scorer = self._scorer.changed(records)
            overlay.write(self._folder, scorer.changes.records)
            self._scorer = scorer

    def explain(self, decision: str) -> Explanation:
        """Replay one of the last 256 decisions from its id, bit for bit. Raises `KeyError` for any other."""
        with self._lock:
            made = self._made[decision]
        return decisions.explain(made)

    def forget_user(self, user: str) -> None:
        """Delete all that this device knows of a user, to the last byte: states, and events that were not sent yet.

        What was uploaded before is erased by the collector's side, by install. The user may come back, as a stranger.
        Raises `StorageError` when the file could not be changed; then nothing is promised.
        """
        check_text(user=user)
        pseudonym = self._pseudonym(user)
        with self._lock:
            keys = [kept.forget(pseudonym) for kept in (self._users, self._budget, self._residuals)]
            for decision in [id for id, made in self._made.items() if made.asked.user == user]:
                del self._made[decision]
            self._pseudonym.cache_clear()
        if self._outbox:
            self._outbox.forget(pseudonym, keys)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Upload what is stored; return whether all of it was acknowledged within the time."""
        return self._uploader.drain(timeout_s) if self._uploader else False

    def update(self, timeout_s: float = 900.0) -> int | None:
        """Fetch, verify and swap in the newest release; return its number, or None when there is none newer.

        Between two requests the old bundle serves, after that the new one; if its first decision fails the engine goes
        back by itself. Raises `UpdateError` when fetching or verifying failed; the old bundle goes on serving.
        """
        if self._slots is None or self._releases is None or self._root is None:
            raise UpdateError("expected an engine opened with `state`, `releases` and `root`")
        if self._confirming is not None:
            self._confirming.join()
        folder = fetch(
            self._releases,
            self._root,
            self._slots.folder,
            app=self._scorer.bundle.manifest.app,
            current_release=self.release,
            install=self._install,
            serving=self._scorer.bundle.folder,
            timeout_s=timeout_s,
        )
        if folder is None:
            return None
        with self._swapping:
            scorer = self._prepare(Bundle.open(folder))
            scorer.warm_up()
            self._slots.activate(scorer.bundle.manifest.release)
            self._scorer, self._unproven = scorer, True
        return self.release

    def rollback(self) -> int:
        """Go back to the bundle before; the present release is never tried again. Return the number that serves now."""
        self._go_back("asked by the app")
        return self.release

    def warm_up(self, attributes: Iterable[str] = ()) -> None:
        """Do now what the first recommendation would wait for: kernels, tables, and the groups of these attributes."""
        self._scorer.warm_up(attributes)

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
        if self._closed:
            return
        self._closed = True
        if self._uploader:
            self._uploader.stop(timeout_s)
        if self._slots and self._unproven:
            self._slots.forgive()
        if self._confirming:
            self._confirming.join(timeout_s)  # a process that ends before this is written looks like a crash
        if self._outbox:
            self._outbox.close(timeout_s)
            self._outbox, self.storage_fault = None, "the engine is closed"

    def _decide(self, scorer: Scorer, asked: Asked, greedy: bool) -> Slate:
        pseudonym = self._pseudonym(asked.user)
        with self._lock:
            state = self._users.get(pseudonym, scorer)
        plan = self._plan(scorer, pseudonym, greedy)
        context = self._encode_context(scorer, asked.context)
        vector = scorer.state.user(state.state, context)
        if self._adapts:
            vector = vector + self._residual(pseudonym, scorer)
        made = decisions.make(scorer, vector, plan, asked, uuid7(self._clock, self._entropy))
        if made.slate.items:
            self._record(made, pseudonym, state, context)
            self._remember(made)
        if self._unproven:
            self._confirm()
        return made.slate

    def _plan(self, scorer: Scorer, pseudonym: str, greedy: bool) -> Exploration:
        """Return how this decision explores: as the bundle says, unless somebody or the user's budget forbids it."""
        plan = scorer.bundle.manifest.exploration
        if greedy or not self.exploring:
            return scorer.greedy
        if plan.daily is None:
            return plan
        with self._lock:
            return plan if self._budget.spent(pseudonym, self._clock.wall_ms()) < plan.daily else scorer.greedy

    def _residual(self, pseudonym: str, scorer: Scorer) -> Vector:
        with self._lock:
            residual = self._residuals.get(pseudonym, scorer.space, scorer.bundle.manifest.sizes.dim)
        return residual.shift.astype("float32")

    def _record(self, made: Made, pseudonym: str, state: UserState, context: Vector | None) -> None:
        slate, plan = made.slate, made.plan
        shared = base64.b64encode(context.tobytes()).decode() if context is not None and self._share_context else None
        event = wire.Decision(
            **self._stamp(slate.decision),
            user=pseudonym,
            release=slate.release,
            scheme=plan.scheme,
            epsilon=plan.epsilon,
            pool=len(made.ranking.rows),
            eligible=made.ranking.eligible,
            slate=[wire.Slot(i.id, i.rank, i.explored, i.propensity, i.marginal) for i in slate],
            state=state.check,
            events=state.events,
            context=shared,
            guarded=plan.guarded or UNSET,
            caps=made.asked.at_most or UNSET,
            adapted=self._adapts or UNSET,
            temperature=plan.temperature if plan.scheme == "softmax" else UNSET,
        )
        explored = sum(item.explored for item in slate) if plan.daily is not None else 0
        with self._lock:
            spent = self._budget.spend(pseudonym, event.clock.wall, explored) if explored else None
        self._put([event], spent)

    def _remember(self, made: Made) -> None:
        with self._lock:
            self._made[made.slate.decision] = made
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)

    def _encode_context(self, scorer: Scorer, context: str | None) -> Vector | None:
        if not context:
            return None
        try:
            return scorer.encoder.encode(context)
        except (SanderlingError, ImportError, ValueError) as error:
            log.warning("context ignored: %s", error)
            return None

    def _put(self, events: list[wire.Event], states: Mapping[str, bytes] | None = None) -> None:
        if self._outbox is not None:
            self._outbox.put(events, states or {})

    def _stamp(self, id: str | None = None) -> dict[str, Any]:
        clock = wire.Clock(wall=self._clock.wall_ms(), mono=self._clock.mono_ms(), boot=self._boot)
        return {"id": id or uuid7(self._clock, self._entropy), "install": self._install, "seq": 0, "clock": clock}

    def _prepare(self, bundle: Bundle) -> Scorer:
        return Scorer(bundle).changed(overlay.read(self._folder, bundle))

    def _newest(self, given: Bundle) -> Bundle:
        try:
            installed = self._slots.current() if self._slots else None
            if installed is None:
                return given
            bundle = Bundle.open(installed)
        except SanderlingError as error:
            log.warning("the installed bundle does not open, serving the one given: %s", error)
            return given
        return bundle if bundle.manifest.release > given.manifest.release else given

    def _confirm(self) -> None:
        """Mark the new release good, in the background: it has served, and a request must not wait for the disk."""
        self._unproven = False
        if self._slots is not None:
            self._confirming = Thread(target=self._slots.confirm, name="sanderling-confirm", daemon=True)
            self._confirming.start()

    def _go_back(self, reason: str) -> None:
        with self._swapping:
            previous = self._slots.roll_back(reason) if self._slots else None
            self._scorer = self._prepare(Bundle.open(previous) if previous else self._given)
            self._unproven = False

    def _open_outbox(self) -> Outbox | None:
        if self._folder is None:
            self.storage_fault = "the engine was opened without a state folder"
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return Outbox(self._folder, clock=self._clock, entropy=self._entropy)
        except (StorageError, OSError) as error:
            self.storage_fault = str(error)
            log.error("nothing can be stored, recommending goes on: %s", error)
            return None

    def _open_uploader(self, collector: str | None, token: str | None) -> Uploader | None:
        if collector is None or self._outbox is None:
            return None
        transport = HttpTransport(collector, token)
        uploader = Uploader(self._outbox, transport, clock=self._clock, rng=random.Random(self._entropy(8)))
        uploader.start()
        return uploader


def _pseudonym_of(secret: bytes, user: str) -> str:
    return hmac.digest(secret, user.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]
