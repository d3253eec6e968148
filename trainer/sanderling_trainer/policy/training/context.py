"""What the stages of training share: the network, the log it learns from, and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import PopularityHistory
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.metric_logger import NO_METRICS, MetricLogger


@dataclass(frozen=True)
class TrainingContext:
    """A network, which training changes in place, and all that decides how."""

    network: PolicyNetwork

    histories: Sequence[History] | Shards
    """What users did. Only the warm start takes shards."""

    config: Config

    repeats: bool
    """Whether users come back to items they had. If not, those are excluded from the softmax, as
    the device excludes them from the slate.
    """

    popularity: PopularityHistory | None = None
    """Gives each event of the warm start the popularity of its own day; without it the network's
    own day counts throughout.
    """

    metric_logger: MetricLogger = NO_METRICS

    @property
    def histories_in_memory(self) -> Sequence[History]:
        """The histories; raises TypeError where they are shards."""
        if isinstance(self.histories, Shards):
            raise TypeError(
                f"expected histories in memory, found the shards {self.histories.folder};"
                " only the warm start takes shards"
            )
        return self.histories

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.bias.device
