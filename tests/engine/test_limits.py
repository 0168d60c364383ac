"""Control groups as they really look: v1, v2, nested, in containers."""

from __future__ import annotations

import pytest

from odc_stats_gpu.engine._limits import (
    cgroup_memory,
    cpu_count,
    parse_bytes,
    physical_memory,
    read_limits,
)
from odc_stats_gpu.errors import ConfigError

V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1_MEMORY = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
NO_LIMIT = 9223372036854771712


@pytest.fixture
def machine(tmp_path):
    """A made-up /proc and /sys."""

    def make(groups: str, mounts: list[str], files: dict[str, object], ram_kb: int = 8 << 20):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        (tmp_path / "proc/self/mountinfo").write_text("\n".join(mounts))
        (tmp_path / "proc/meminfo").write_text(f"MemTotal:       {ram_kb} kB\n")
        for name, value in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("text", "count"),
    [("60Gi", 60 << 30), ("8GB", 8 * 10**9), ("1024Mi", 1 << 30), ("1.5g", 1_500_000_000),
     ("1073741824", 1 << 30), ("512 MiB", 512 << 20), ("2k", 2000)],
)  # fmt: skip
def test_sizes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "lots", "10Q", "-1Gi", "0", "1.2.3", "i", "5i"])
def test_a_wrong_size_names_value_and_remedy(text):
    with pytest.raises(ConfigError, match="60Gi") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)


def test_v2_limit_of_a_parent_counts(machine):
    root = machine(
        "0::/pod/container", [V2],
        {"pod/container/memory.max": "max", "pod/memory.max": 3 << 30, "memory.max": 5 << 30,
         "pod/container/cpu.max": "max 100000", "pod/cpu.max": "100000 100000"},
    )  # fmt: skip
    assert cgroup_memory(root) == 3 << 30
    assert cpu_count(root) == 1


def test_v2_path_of_the_host_inside_a_container(machine):
    # the mount shows the container's group as its root, /proc names the host's path
    root = machine("0::/kubepods/pod1/c1", [V2], {"memory.max": 1 << 30, "cpu.max": "50000 100000"})
    assert cgroup_memory(root) == 1 << 30
    assert cpu_count(root) == 1


def test_v1_without_limits(machine):
    root = machine(
        "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/", [V1_MEMORY.format(root="/"), V1_CPU],
        {"memory/a/b/memory.limit_in_bytes": NO_LIMIT, "memory/memory.limit_in_bytes": NO_LIMIT,
         "cpu,cpuacct/cpu.cfs_quota_us": -1, "cpu,cpuacct/cpu.cfs_period_us": 100000},
    )  # fmt: skip
    assert cgroup_memory(root) is None
    assert cpu_count(root) >= 1  # the incumbent finds 0 here
    assert read_limits(root=root).memory_from == "physical memory"


def test_v1_docker(machine):
    root = machine(
        "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc",
        [V1_MEMORY.format(root="/docker/abc"), V1_CPU],
        {"memory/memory.limit_in_bytes": 2 << 30, "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": 50000,
         "cpu,cpuacct/docker/abc/cpu.cfs_period_us": 100000},
    )  # fmt: skip
    assert cgroup_memory(root) == 2 << 30
    assert cpu_count(root) == 1


def test_the_smallest_limit_wins(machine):
    root = machine("0::/", [V2], {"memory.max": 4 << 30})
    assert physical_memory(root) == 8 << 30
    assert read_limits("60Gi", root).memory == 4 << 30
    assert read_limits("60Gi", root).memory_from == "cgroup"
    assert read_limits("1Gi", root).memory == 1 << 30
    assert read_limits("1Gi", root).memory_from == "--memory-limit"


def test_no_control_groups_at_all(tmp_path):
    assert cgroup_memory(tmp_path) is None
    assert cpu_count(tmp_path) >= 1
