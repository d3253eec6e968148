"""What happened on the device, told as the events that may leave it. Refuses to know storage and networks."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import UNSET, UnsetType

from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.outbox.identity import Identity
from sanderling.ranking.decision import DecisionRecord
from sanderling.ranking.scorer import Vector
from sanderling.runtime.clock import Entropy, uuid7
from sanderling.users import randomized_response
from sanderling.users.user_states import UserState


class EventFactory:
    """Makes events of one install. `share_context` lets context vectors out, and `privacy` turns clicks round now and
    then, by the install's secret (`noise`)."""

    def __init__(
        self,
        identity: Identity,
        boot: BootClock,
        *,
        entropy: Entropy,
        share_context: bool = False,
        privacy: float | None = None,
    ) -> None:
        self._install, self._secret = identity
        self._boot = boot
        self._entropy = entropy
        self._share_context = share_context
        self._privacy = privacy

    @property
    def exact(self) -> bool:
        """Whether outcomes are told as they were."""
        return self._privacy is None

    def decision(
        self, made: DecisionRecord, state: UserState, context: Vector | None, adapted: bool
    ) -> wire.Decision:
        """Tell a decision, the state that it was made for, and where it is allowed the context's vector."""
        slate, plan = made.slate, made.plan
        shared = (
            base64.b64encode(context.tobytes()).decode()
            if context is not None and self._share_context
            else None
        )
        return wire.Decision(
            **self._stamp(slate.decision),
            user=slate.pseudonym,
            release=slate.release,
            scheme=plan.scheme,
            epsilon=plan.epsilon,
            pool=len(made.ranking.rows),
            eligible=made.ranking.eligible,
            slate=[wire.Slot(i.id, i.rank, i.explored, i.propensity, i.marginal) for i in slate],
            state_checksum=state.check,
            state_events=state.events,
            context=shared,
            guarded=plan.guarded or UNSET,
            caps=made.request.at_most or UNSET,
            adapted=adapted or UNSET,
            temperature=plan.temperature if plan.scheme == "softmax" else UNSET,
        )

    def outcome(
        self,
        decision: str,
        slot: int,
        item: str,
        pseudonym: str,
        value: float,
        kind: str | None = None,
        *,
        moves: bool = False,
        late: bool = False,
    ) -> wire.Outcome:
        """Tell what became of one slot; where clicks are flipped, nothing else may tell what it was."""
        flip_probability: float | UnsetType = UNSET
        if self._privacy is not None:
            value = randomized_response.told(value, self._secret, decision, slot, self._privacy)
            kind, moves, flip_probability = None, False, randomized_response.chance(self._privacy)
        return wire.Outcome(
            **self._stamp(),
            user=pseudonym,
            decision=decision,
            slot=slot,
            item=item,
            kind=kind or ("click" if value > 0 else "skip"),
            value=value,
            updates_state=moves,
            flip_probability=flip_probability,
            late=late or UNSET,
        )

    def observation(self, pseudonym: str, item: str, kind: str) -> wire.Observation:
        """Tell of organic behaviour."""
        return wire.Observation(**self._stamp(), user=pseudonym, item=item, kind=kind)

    def state_reset(self, state: UserState) -> wire.StateReset:
        """Tell what a state was made of."""
        return wire.StateReset(**self._stamp(), user=state.name, steps=list(state.tail))

    def _stamp(self, id: str | None = None) -> dict[str, Any]:
        clock = self._boot.read()
        fresh = id or uuid7(clock.wall, self._entropy)
        return {"id": fresh, "install": self._install, "seq": 0, "clock": clock}
