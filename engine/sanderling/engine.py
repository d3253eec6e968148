"""The engine, which an app embeds: recommendations, rewards, uploads and updates behind one class.

`recommend` never waits for disk or network; `reward` waits until the reward is durable, for so long
as its caller allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from sanderling.arguments import (
    check_caps,
    check_context,
    check_diversity,
    check_flags,
    check_pins,
    check_request,
    check_several,
    check_text,
    check_timeout,
    ids_of,
    pages_before,
)
from sanderling.bundle.reader import Bundle
from sanderling.engine_catalog import CatalogCalls
from sanderling.engine_reasons import ReasonCalls
from sanderling.engine_rewards import RewardCalls
from sanderling.engine_search import SearchCalls
from sanderling.errors import StorageError, UpdateError
from sanderling.options import EngineOptions, OptionTypes, check_names
from sanderling.ranking import boosts, rules
from sanderling.ranking import decision as decisions
from sanderling.ranking.boosts import NO_BOOSTS
from sanderling.ranking.bundle_rules import rules_of
from sanderling.ranking.contexts import NO_CONTEXT, check_values
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.pins import NO_PINS, check_known
from sanderling.ranking.scorer import NO_CAPS, Scorer
from sanderling.releases.probe import verify_bundle
from sanderling.releases.slots import Slots
from sanderling.releases.updater import UpdateRequest, fetch
from sanderling.slate import Explanation, Slate, SlateItem
from sanderling.upload.uploader import IDLE_S


class Engine(CatalogCalls, ReasonCalls, RewardCalls, SearchCalls):
    """A recommender in the app's own process. Thread-safe. Made by `Engine.open`.

    Signal handlers: set a flag there and call the engine from your own code, never from a handler.

    Forks: only the process that opened the engine may use it. In a forked child `close` does
    nothing and all else raises `RuntimeError`; open another engine there, with its own folder.
    """

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        state: str | Path | None = None,
        collector: str | None = None,
        token: str | None = None,
        **settings: Unpack[OptionTypes],
    ) -> Engine:
        """Open the bundle that the app ships, or a newer one that was installed since.

        `EngineOptions` documents `state`, `collector`, `token` and all other settings.

        Raises `BundleError` when the bundle does not open, `StorageError` when the list of items
        that the app added or removed cannot be read, `ValueError` for a setting out of range,
        `TypeError` for an unknown one.
        """
        check_names(settings)
        options = EngineOptions(state=state, collector=collector, token=token, **settings)
        opened = Bundle.open(bundle, verify=options.verify)
        if options.verify:
            verify_bundle(opened, options.child_command)
        return cls(opened, options)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def release(self) -> int:
        """The active release."""
        return self._active_bundle.release

    def recommend(
        self,
        user: str,
        k: int = 10,
        context: str | Mapping[str, Any] | None = None,
        exclude: Iterable[SlateItem | str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        among: Iterable[SlateItem | str] | None = None,
        after: Slate | None = None,
        at_most: Mapping[str, int] = NO_CAPS,
        boost: Iterable[Mapping[str, Any]] = (),
        pin: Mapping[int, SlateItem | str] = NO_PINS,
        diversity: float = 0.0,
        greedy: bool = False,
    ) -> Slate:
        """Return a slate of at most k items for a user, known or not.

        `context` is any text about the user's situation, or features that the lab's schema declares
        and `text`: `{"hour": 18, "text": "rain"}`; unknown names are ignored (docs/ATTRIBUTES.md).
        `exclude` holds ids not to show, or items of a slate; unknown ids are ignored.

        `where` is a rule that items must meet, such as
        `{"price": {"lt": 50}, "genre": {"any": ["jazz", "folk"]}}` (docs/RULES.md). `among` holds
        the only ids to rank. `after` is the page before: nothing of it is repeated, nor of the
        pages that it came after.

        `at_most` caps how many items may share a value of an attribute, each value of a list
        counting: `{"author": 2}`. Rules and caps apply to all from which exploration draws; the
        first use of an attribute reads the whole catalog (see `warm_up`). `boost` adds to scores:
        `[{"where": {"genre": "jazz"}, "by": 0.5}]`. `pin` fixes items to slots, from 0: `{0:
        "sku-1"}`; a pin gives way where its item breaks another rule or was removed. `diversity`,
        0 to 1, is how much it counts that an item is unlike those before it. `greedy` turns
        exploration off.

        The slate is shorter than k where fewer items are eligible, or where ids of more than 66
        bytes leave no room for 1000 of them in one event; its `shortage` says which.

        Raises `TypeError` for an argument of a wrong type, `ValueError` unless 1 <= k <= 1000, caps
        are at least 1, `diversity` is in [0, 1], pins are distinct items of the catalog in slots
        below k, and rules are of attributes that an item has; never for the contents of `user` and
        `context`.
        """
        check_flags(greedy=greedy)
        k = check_request(user, k)
        caps = {} if at_most is NO_CAPS else check_caps(at_most)
        request = RecommendRequest(
            user,
            k,
            NO_CONTEXT if context is None else check_context(context),
            ids_of(exclude, "exclude"),
            caps,
            NO_PINS if pin is NO_PINS else check_pins(pin, k),
            None if where is None else rules.parse(where),
            None if among is None else ids_of(among, "among"),
            () if after is None else pages_before(user, after),
            check_diversity(diversity) if diversity != 0.0 else 0.0,
            boosts.parse(boost) if boost != () else NO_BOOSTS,
        )
        return self._answer(request, greedy)

    def _answer(self, request: RecommendRequest, greedy: bool) -> Slate:
        now_ms = self._begin_call()
        scorer = self._active_bundle.scorer
        asked = rules_of(scorer).added_to(request)
        if asked.context.values:
            check_values(asked.context, scorer.context_features)
        # What does not fit the catalog is the caller's error: nothing is rolled back for it.
        if asked.pin:
            check_known(scorer, asked.pin)
        if asked.where is not None or asked.boost:
            scorer.eligible(asked.where, None, asked.boost)
        try:
            return self._decide(scorer, asked, greedy, now_ms)
        except Exception as error:
            scorer = self._active_bundle.scorer_after(scorer, error)
            return self._decide(scorer, rules_of(scorer).added_to(request), greedy, now_ms)

    def _decide(
        self, scorer: Scorer, request: RecommendRequest, greedy: bool, now_ms: int
    ) -> Slate:
        greedy = greedy or not self.exploring
        slate = self._recommender.recommend(self._profiles, scorer, request, greedy, now_ms)
        self._active_bundle.confirm(scorer.bundle)
        self._let_explain(slate)
        return slate

    def observe(self, user: str, item: str, kind: str = "view") -> None:
        """Record organic behaviour: it updates the user's state at once and is uploaded later.

        Raises `ValueError` unless `item` and `kind` have 1 to 512 characters of valid Unicode.
        """
        check_text(user=user, item=item, kind=kind)
        self._begin_call()
        self._profiles.observe(user, item, kind, self._active_bundle.scorer)

    async def aobserve(self, user: str, item: str, kind: str = "view") -> None:
        """Do what `observe` does, without blocking the event loop."""
        import asyncio

        await asyncio.to_thread(self.observe, user, item, kind)

    def explain(self, decision: str) -> Explanation:
        """Replay one of the last 256 decisions bit for bit. Raises `KeyError` for any other id."""
        check_text(decision=decision)
        return decisions.explain(self._profiles.decision_record(decision))

    def forget_user(self, user: str) -> None:
        """Erase every trace of a user on this device, events that are not sent yet included.

        What was uploaded is erased on the collector's side, by install. A user who comes back is a
        new one. Raises `StorageError` when the file could not be changed: something may remain.
        """
        check_text(user=user)
        self._profiles.forget(user)
        if self._state.outbox is None and self._state.folder is not None:
            raise StorageError(f"forgotten in memory but not on disk: {self.storage_fault}")

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Upload what is stored; return whether all of it was acknowledged within the time.

        Honours the current backoff: after a failed attempt it returns False at once and sends
        nothing until the wait is over.
        """
        timeout_s = check_timeout(timeout_s)
        self._begin_call()
        self._state.write_queued()
        return self._uploader.drain(timeout_s) if self._uploader else False

    def step(self) -> float:
        """Without `background`, write what is queued and send at most one batch.

        Return the seconds to wait before the next step.
        """
        self._begin_call()
        self._state.write_queued()
        return self._uploader.step() if self._uploader else IDLE_S

    def update(self, timeout_s: float = 900.0) -> int | None:
        """Fetch, verify and swap in the newest release; return its number, or None without a newer.

        The swap happens between two requests. If the new release fails before it has decided its
        first slate, in a search too, the engine rolls back. Raises `UpdateError` when fetching or
        verifying failed, or another engine holds the state folder; the previous release stays
        active.
        """
        timeout_s = check_timeout(timeout_s)
        releases = self._options.releases
        root = self._root
        if releases is None or root is None:
            raise UpdateError("expected an engine opened with `state`, `releases` and `root`")

        def install_newest(slots: Slots, active: Bundle) -> Path | None:
            request = UpdateRequest(
                releases,
                root,
                str(slots.folder),
                app=active.manifest.app,
                current_release=active.manifest.release,
                install=self._profiles.identity.install,
                active_folder=str(active.folder),
                child_command=self._options.child_command,
            )
            return fetch(request, timeout_s)

        return self._active_bundle.update(install_newest)

    def rollback(self) -> int:
        """Block the active release for good and activate the previous one; return its number.

        Raises `StorageError` where that cannot be stored: the previous release is then active only
        until this engine is closed.
        """
        self._active_bundle.roll_back("requested by the app")
        return self.release

    def warm_up(self, attributes: Iterable[str] = (), *, search: bool = False) -> None:
        """Load what the first recommendation would wait for, including groups by `attributes`, and
        what the first calls of `search` and `similar` would, if `search` says so."""
        check_flags(search=search)
        check_several(attributes=attributes)
        names = list(attributes)
        for name in names:
            check_text(attributes=name)
        scorer = self._active_bundle.scorer
        scorer.warm_up(names)
        if search:
            self._item_search.warm_up(scorer)

    def counters(self) -> dict[str, Any]:
        """Return what became of events, uploads, contexts, texts and updates, for the app's own
        monitoring."""
        outbox = self._state.outbox
        return {
            "release": self.release,
            "storage_fault": self.storage_fault,
            "outbox": outbox.counters() if outbox else None,
            "upload": self._uploader.counters if self._uploader else None,
            "encoder": self._recommender.counters(),
            "texts": self._active_bundle.scorer.encoder.monitor.counters(),
            "updates": replace(self._active_bundle.counters),
        }
