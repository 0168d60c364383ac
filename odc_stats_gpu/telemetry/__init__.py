"""What the engine tells the outside: stage times, log lines, progress, fault points for tests."""

from odc_stats_gpu.telemetry._faults import FAULT_POINTS, InjectedFault, fault_point
from odc_stats_gpu.telemetry._log import (
    Level,
    capture_library_messages,
    configure_logging,
    log,
    set_sink,
)
from odc_stats_gpu.telemetry._progress import RunProgress
from odc_stats_gpu.telemetry._stages import StageTimes, recording, stage

__all__ = [
    "FAULT_POINTS",
    "InjectedFault",
    "Level",
    "RunProgress",
    "StageTimes",
    "capture_library_messages",
    "configure_logging",
    "fault_point",
    "log",
    "recording",
    "set_sink",
    "stage",
]
