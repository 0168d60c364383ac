"""What the engine tells the outside: stage times, log lines, progress, fault points for tests."""

from odc_stats_gpu.telemetry._faults import FAULT_POINTS, InjectedFault, fault_point
from odc_stats_gpu.telemetry._stages import StageTimes, recording, stage

__all__ = ["FAULT_POINTS", "InjectedFault", "StageTimes", "fault_point", "recording", "stage"]
