"""What the engine tells the outside: stage times, log lines, progress, fault points for tests."""

from odc_stats_gpu.telemetry import _metrics as metrics
from odc_stats_gpu.telemetry._faults import FAULT_POINTS, InjectedFault, fault_point
from odc_stats_gpu.telemetry._gpu_use import GpuWatch
from odc_stats_gpu.telemetry._heartbeat import beat
from odc_stats_gpu.telemetry._log import (
    Level,
    bind_log,
    capture_library_messages,
    configure_logging,
    log,
    set_sink,
)
from odc_stats_gpu.telemetry._metrics import Stopper, start_metrics
from odc_stats_gpu.telemetry._nvml import ask_nvml, opened_nvml
from odc_stats_gpu.telemetry._nvtx import SWITCH as NVTX_SWITCH
from odc_stats_gpu.telemetry._nvtx import span
from odc_stats_gpu.telemetry._progress import RunProgress
from odc_stats_gpu.telemetry._samplers import gpu_sampler, sample_memory
from odc_stats_gpu.telemetry._stages import StageTimes, recording, stage

__all__ = [
    "FAULT_POINTS",
    "NVTX_SWITCH",
    "GpuWatch",
    "InjectedFault",
    "Level",
    "RunProgress",
    "StageTimes",
    "Stopper",
    "ask_nvml",
    "beat",
    "bind_log",
    "capture_library_messages",
    "configure_logging",
    "fault_point",
    "gpu_sampler",
    "log",
    "metrics",
    "opened_nvml",
    "recording",
    "sample_memory",
    "set_sink",
    "span",
    "stage",
    "start_metrics",
]
