from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test asserts on time: a machine that is busy with something else must not fail one.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")
