"""What every test shares: a quiet, reproducible environment."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("PROJ_NETWORK", "OFF")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")

settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _no_faults(monkeypatch):
    """A fault left in the environment would act in every test."""
    monkeypatch.delenv("ODC_STATS_FAULT", raising=False)


@pytest.fixture(autouse=True)
def _no_one_elses_log(monkeypatch):
    """A command that ran in this process leaves its log on a stream that is closed by now."""
    module = sys.modules.get("odc_stats_gpu.telemetry._log")
    if module is not None:
        monkeypatch.setattr(module, "_sink", module._plain)
