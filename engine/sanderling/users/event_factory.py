"""Builds the events of one install from what happened on the device, with only what may leave
it."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.events.pending_decision import PendingDecision
from sanderling.events.semantics import kind_of_reward
from sanderling.outbox.identity import Identity
from sanderling.ranking.decision import DecisionRecord, is_pool_shaped, pool_boosts
from sanderling.ranking.scorer import Vector
from sanderling.runtime.clock import Entropy, uuid7
from sanderling.users import randomized_response
from sanderling.users.user_states import UserState


class ShownSlot(NamedTuple):
    """One slot of a decision, its item, and the pseudonym of the user to whom it was shown."""

    decision: str
    slot: int
    item: str
    pseudonym: str


class EventFactory:
    """Makes events of one install.

    `share_context` lets context vectors leave the device; `privacy` is the ε of randomized
    response, None for exact rewards.
    """

    def __init__(
        self,
        identity: Identity,
        boot: BootClock,
        *,
        entropy: Entropy,
        share_context: bool = False,
        privacy: float | None = None,
    ) -> None:
        self._identity = identity
        self._boot = boot
        self._entropy = entropy
        self._share_context = share_context
        self._privacy = privacy

    @property
    def is_exact(self) -> bool:
        """Whether outcomes carry rewards as they were."""
        return self._privacy is None

    def decision(
        self, record: DecisionRecord, state: UserState, context: Vector | None, adapted: bool
    ) -> PendingDecision:
        """Return the event of a decision and the state that it was made for; its context only where
        that is shared. It is built when it is written."""
        slate = record.slate
        common = self._common_fields(slate.decision)
        if texts := record.scorer.encoder.monitor.take():
            common["texts"] = wire.TextCounts(**asdict(texts))

        def build() -> wire.Decision:
            return self._build_decision(common, record, state, context, adapted)

        return PendingDecision(
            slate.decision, self._identity.install, slate.pseudonym, slate.items, build
        )

    def _build_decision(
        self,
        common: dict[str, Any],
        record: DecisionRecord,
        state: UserState,
        context: Vector | None,
        adapted: bool,
    ) -> wire.Decision:
        slate = record.slate
        plan = record.plan
        experiment = record.scorer.bundle.manifest.experiment

        pool_items, boosts = self._pool(record)
        shared_context = None
        if context is not None and self._share_context:
            shared_context = base64.b64encode(context.tobytes()).decode()

        return wire.Decision(
            **common,
            user=slate.pseudonym,
            release=slate.release,
            scheme=plan.scheme,
            epsilon=record.epsilon,
            pool=len(record.ranking.rows),
            eligible=record.ranking.eligible,
            slate=[
                wire.Slot(
                    item.id,
                    item.rank,
                    item.explored,
                    item.propensity,
                    item.marginal,
                    item.newcomer or UNSET,
                    item.pinned or UNSET,
                )
                for item in slate
            ],
            state_checksum=state.checksum,
            state_events=state.events,
            context=shared_context,
            guarded=plan.guarded or UNSET,
            caps=record.request.at_most or UNSET,
            pool_items=pool_items,
            boosts=boosts,
            newcomers=len(record.candidates.newcomers) or UNSET,
            newcomer_rate=record.newcomer_rate or UNSET,
            diversity=record.request.diversity or UNSET,
            adapted=adapted or UNSET,
            experiment=experiment.name if experiment else UNSET,
            arm=record.arm.name if record.arm else UNSET,
            temperature=plan.temperature if plan.scheme == "softmax" else UNSET,
        )

    def outcome(
        self,
        shown: ShownSlot,
        value: float,
        kind: str | None = None,
        *,
        updates_state: bool = False,
        late: bool = False,
    ) -> wire.Outcome:
        """Return the event of one slot's reward.

        With randomized response the kind follows from the flipped value and no state is updated:
        the app's own kind, or a moved state, would reveal the true value.
        """
        flip_probability: float | UnsetType = UNSET
        if self._privacy is not None:
            value = randomized_response.flip(
                value, self._identity.secret, shown.decision, shown.slot, self._privacy
            )
            kind = None
            updates_state = False
            flip_probability = randomized_response.flip_probability(self._privacy)

        return wire.Outcome(
            **self._common_fields(),
            user=shown.pseudonym,
            decision=shown.decision,
            slot=shown.slot,
            item=shown.item,
            kind=kind or kind_of_reward(value),
            value=value,
            updates_state=updates_state,
            flip_probability=flip_probability,
            late=late or UNSET,
        )

    def observation(self, pseudonym: str, item: str, kind: str) -> wire.Observation:
        """Return the event of organic behaviour."""
        return wire.Observation(**self._common_fields(), user=pseudonym, item=item, kind=kind)

    def state_reset(self, state: UserState) -> wire.StateReset:
        """Return the event that names all behaviour from which a state was rebuilt."""
        return wire.StateReset(
            **self._common_fields(), user=state.pseudonym, steps=list(state.history)
        )

    def _pool(
        self, record: DecisionRecord
    ) -> tuple[list[str] | UnsetType, list[float] | UnsetType]:
        """Return the ids of a pool that nobody could rebuild, best first, if they have room, and
        what the app added to its scores."""
        added = pool_boosts(record)
        if added is None:
            return self._pool_items(record, []), UNSET
        ids = self._pool_items(record, added.tolist())
        return ids, [] if ids is UNSET else added.tolist()

    def _pool_items(self, record: DecisionRecord, boosts: list[float]) -> list[str] | UnsetType:
        # The app may exclude or list what was truly rewarded, which randomized response hides.
        is_listed = record.request.exclude or record.request.among is not None
        if is_listed and not self.is_exact:
            return UNSET
        if not is_pool_shaped(record):
            return UNSET
        rows = record.ranking.rows.tolist()
        return codec.fitting_pool((record.scorer.item(row).id for row in rows), len(rows), boosts)

    def _common_fields(self, id: str | None = None) -> dict[str, Any]:
        """Return the fields that all events have; the outbox sets `seq` when it writes the
        event."""
        clock = self._boot.read()
        return {
            "id": id or uuid7(clock.wall, self._entropy),
            "install": self._identity.install,
            "seq": 0,
            "clock": clock,
        }
