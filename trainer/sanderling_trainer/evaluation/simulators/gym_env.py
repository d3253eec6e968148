"""Any environment as a Gymnasium environment: an episode is one user's session, slate by slate.

Needs the extra `gym`. Sources: Gymnasium, Towers et al. 2024; the interface is that of RecSim, Ie
et al. 2019.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sanderling_trainer.evaluation.simulators.click_models import Ints
from sanderling_trainer.evaluation.simulators.environment import Environment, Session


class SlateEnv(gymnasium.Env[dict[str, Any], Ints]):
    """An episode is a session of one user, drawn at random or given as `options={"user": …}`.

    The action is MultiDiscrete [K]: item rows, best first. The observation has `slate` and
    `clicks` of the last step (zeros before the first), `eligible` int8 [n] and `step`. The reward
    is the number of clicks. An item that is not eligible, or comes twice, counts as not clicked
    and in `info["ineligible"]`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium declares it so)

    def __init__(self, environment: Environment, time: int = 0) -> None:
        slots = environment.click_model.slots
        n = len(environment.texts)
        self.environment = environment
        self.time = time
        self.action_space = spaces.MultiDiscrete(np.full(slots, n))
        self.observation_space = spaces.Dict(
            {
                "slate": spaces.MultiDiscrete(np.full(slots, n)),
                "clicks": spaces.MultiBinary(slots),
                "eligible": spaces.MultiBinary(n),
                "step": spaces.Discrete(environment.steps + 1),
            }
        )
        self._session: Session | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a session; `options["user"]` chooses the user."""
        super().reset(seed=seed)
        random_user = int(self.np_random.integers(self.environment.users))
        user = (options or {}).get("user", random_user)
        self._session = Session(self.environment, np.array([user]), self.np_random, self.time)
        slots = self.environment.click_model.slots
        no_slate = np.zeros(slots, np.int64)
        return self._observation(self._session, no_slate, no_slate > 0), {"user": user}

    def step(self, action: Ints) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Show a slate; return observation, reward, terminated, truncated (False) and info."""
        session = self._session
        if session is None:
            raise ValueError("expected reset() before step()")
        slate = np.asarray(action, np.int64)
        is_first = np.isin(np.arange(len(slate)), np.unique(slate, return_index=True)[1])
        valid = session.eligible[0, slate] & is_first

        feedback = session.step(np.where(valid, slate, -1)[None])
        clicks = feedback.clicks[0]
        info = {"ineligible": int((~valid).sum()), "examined": feedback.examined[0]}
        observation = self._observation(session, slate, clicks)
        return observation, float(clicks.sum()), session.done, False, info

    @staticmethod
    def _observation(session: Session, slate: Ints, clicks: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "slate": slate,
            "clicks": clicks.astype(np.int8),
            "eligible": session.eligible[0].astype(np.int8),
            "step": np.int64(session.steps_taken),
        }
