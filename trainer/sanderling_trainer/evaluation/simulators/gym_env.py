"""Worlds as Gymnasium environments (Towers et al. 2024), as RecSim (Ie et al. 2019) does it: one user, slate by slate.

Needs the extra `worlds`. Refuses to know how a world answers.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sanderling_trainer.evaluation.simulators.click_models import Ints
from sanderling_trainer.evaluation.simulators.world import Session, World


class SlateEnvironment(gymnasium.Env[dict[str, Any], Ints]):
    """An episode is a session of one user, drawn at random, or `options={"user": …}`.

    action: MultiDiscrete [K], item rows, best first. observation: `slate` and `clicks` of the last step (before the
    first: zeros), `eligible` int8 [n], `step`. reward: clicks. An item that is not eligible, or that comes twice, is
    answered as not clicked and counted in `info["refused"]`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium declares it so)

    def __init__(self, world: World, time: int = 0) -> None:
        slots, n = world.clicks.slots, len(world.texts)
        self.world, self.time = world, time
        self.action_space = spaces.MultiDiscrete(np.full(slots, n))
        self.observation_space = spaces.Dict(
            {
                "slate": spaces.MultiDiscrete(np.full(slots, n)),
                "clicks": spaces.MultiBinary(slots),
                "eligible": spaces.MultiBinary(n),
                "step": spaces.Discrete(world.steps + 1),
            }
        )
        self._session: Session | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin a session; `options["user"]` chooses the user."""
        super().reset(seed=seed)
        user = (options or {}).get("user", int(self.np_random.integers(self.world.users)))
        self._session = Session(self.world, np.array([user]), self.np_random, self.time)
        slots = self.world.clicks.slots
        return self._observe(np.zeros(slots, np.int64), np.zeros(slots, np.bool_)), {"user": user}

    def step(self, action: Ints) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Show a slate."""
        if self._session is None:
            raise ValueError("expected reset() before step()")
        slate = np.asarray(action, np.int64)
        valid = self._session.eligible[0, slate]
        valid &= np.isin(np.arange(len(slate)), np.unique(slate, return_index=True)[1])
        feedback = self._session.step(np.where(valid, slate, -1)[None])
        clicks = feedback.clicks[0]
        info = {"refused": int((~valid).sum()), "seen": feedback.seen[0]}
        return self._observe(slate, clicks), float(clicks.sum()), self._session.done, False, info

    def _observe(self, slate: Ints, clicks: NDArray[np.bool_]) -> dict[str, Any]:
        assert self._session is not None
        return {
            "slate": slate,
            "clicks": clicks.astype(np.int8),
            "eligible": self._session.eligible[0].astype(np.int8),
            "step": np.int64(self._session.taken),
        }
