"""From one small job file to the Kubernetes objects of a fleet. Nothing is applied."""

from odc_stats_gpu.fleet._manifests import as_yaml, kustomization, render
from odc_stats_gpu.fleet._spec import JobSpec, Resources, parse_job

__all__ = ["JobSpec", "Resources", "as_yaml", "kustomization", "parse_job", "render"]
