"""What may be given to a retraining. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from sanderling.tables.event_log import ReadOptions
from sanderling_quantize.settings import checked, types_of
from sanderling_trainer.policy.model.device import Device

Source = Any
"""As in `sanderling_trainer.data.files`: a path, a URL, an Arrow table or a data frame."""


@dataclass(frozen=True)
class RetrainOptions:
    """What may be given to a retraining. Raises `ValueError` for a value out of its bounds."""

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    """Of all random numbers."""

    items: Source | None = None
    """The catalog from now on; the checkpoint's if not given."""

    schema: Any = None
    """The types of the attributes of `items`: a path or a mapping; by default schema.toml beside
    the table, and the types of the active release."""

    interactions: Source | None = None
    """The log from before the devices, which then teaches again beside their histories."""

    tables: ReadOptions = field(default_factory=ReadOptions)
    """How the columns of the two are read."""

    days: Annotated[float, Meta(ge=0.0)] = 7.0
    """Decisions that have taught before teach again for so many days."""

    ship_anyway: bool = False
    """Write the checkpoint even if the release gate holds it."""

    device: Device = Device.auto
    """Where texts are encoded and the candidate learns: auto, cpu or cuda."""

    def __post_init__(self) -> None:
        checked(self.numbers(), types_of(RetrainOptions))

    def numbers(self) -> dict[str, Any]:
        """Return what decides the result beside the tables, whose contents count."""
        return {name: vars(self)[name] for name in ("seed", "days", "ship_anyway", "device")}
