"""What holds for every test: examples of hypothesis have no time limit, for a machine may stand still at times."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")
