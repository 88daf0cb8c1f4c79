"""Resources of this process: the least that the machine and each level of its control groups allow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kedge.system.machine import LEAST_MB, SHARE, WORKER_MB, Machine, read_machine

GB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1 kB\n"
MOUNT_2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
MOUNTS_1 = (
    "32 31 0:29 {base} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {base} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
UNLIMITED_1 = "9223372036854771712\n"


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def found(root: Path, files: Mapping[str, str], affinity: int = 8) -> tuple[float, int]:
    machine = read_machine(tree(root, files), affinity)
    return machine.processors, machine.memory


def test_without_groups_it_is_the_machine(tmp_path: Path) -> None:
    machine = read_machine(tree(tmp_path, {}), 8)
    assert machine == Machine(8.0, 16 * GB, "the machine", "the machine")


def test_nothing_that_can_be_read_is_no_limit(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, 3)
    assert (machine.processors, machine.memory) == (3.0, 0)
    assert machine.for_model(4096) == 4 * GB
    assert machine.for_worker(4096, 8) == (WORKER_MB + 4096) << 20


V2 = {"proc/self/mountinfo": MOUNT_2, "proc/self/cgroup": "0::/a/b\n"}
AT = "sys/fs/cgroup"


@pytest.mark.parametrize(
    "files, expected",
    [
        ({f"{AT}/a/b/cpu.max": "150000 100000\n"}, (1.5, 16 * GB)),
        ({f"{AT}/a/b/cpu.max": "max 100000\n", f"{AT}/a/b/memory.max": "max\n"}, (8.0, 16 * GB)),
        ({f"{AT}/a/b/memory.max": f"{GB}\n"}, (8.0, GB)),
        ({f"{AT}/a/b/memory.max": "max\n", f"{AT}/a/b/memory.high": f"{GB}\n"}, (8.0, GB)),
        (
            {
                f"{AT}/a/b/memory.max": f"{4 * GB}",
                f"{AT}/a/memory.max": f"{2 * GB}",
                f"{AT}/a/cpu.max": "200000 100000",
            },
            (8.0, 2 * GB),
        ),
        (
            {f"{AT}/a/b/cpu.max": "6400000 100000", f"{AT}/a/b/memory.max": f"{64 * GB}"},
            (8.0, 16 * GB),
        ),
        ({f"{AT}/a/b/cpu.max": "nonsense", f"{AT}/a/b/memory.max": ""}, (8.0, 16 * GB)),
        ({f"{AT}/a/b/cpu.max": "100000 0"}, (8.0, 16 * GB)),
    ],
)
def test_version_2_counts_at_each_level(
    tmp_path: Path, files: Mapping[str, str], expected: tuple[float, int]
) -> None:
    more = {f"{AT}/a/cpu.max": "max 100000", f"{AT}/a/b/cgroup.procs": ""}
    processors, memory = found(tmp_path, {**V2, **more, **files})
    if f"{AT}/a/cpu.max" in files:
        expected = (2.0, expected[1])
    assert (processors, memory) == expected


def test_within_a_container_its_own_group_is_the_root(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": MOUNT_2,
        "proc/self/cgroup": "0::/\n",
        f"{AT}/cpu.max": "250000 100000\n",
        f"{AT}/memory.max": f"{3 * GB}\n",
    }
    machine = read_machine(tree(tmp_path, files), 8)
    assert (machine.processors, machine.memory) == (2.5, 3 * GB)
    assert machine.memory_by == "control group /"


@pytest.mark.parametrize("base", ["/", "/docker/5e"])
def test_version_1_counts_with_the_paths_of_the_host_or_of_the_container(
    tmp_path: Path, base: str
) -> None:
    """A bind mount of the container's own group has the host's path as its root."""
    inner = "" if base == "/docker/5e" else "docker/5e/"
    files = {
        "proc/self/mountinfo": MOUNTS_1.format(base=base),
        "proc/self/cgroup": "4:memory:/docker/5e\n2:cpu,cpuacct:/docker/5e\n1:name=systemd:/\n0::/\n",
        f"{AT}/cpu,cpuacct/{inner}cpu.cfs_quota_us": "300000\n",
        f"{AT}/cpu,cpuacct/{inner}cpu.cfs_period_us": "100000\n",
        f"{AT}/memory/{inner}memory.limit_in_bytes": f"{5 * GB}\n",
    }
    assert found(tmp_path, files) == (3.0, 5 * GB)


def test_version_1_without_limits_is_the_machine(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": MOUNTS_1.format(base="/"),
        "proc/self/cgroup": "4:memory:/x\n2:cpu,cpuacct:/\n",
        f"{AT}/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        f"{AT}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        f"{AT}/memory/x/memory.limit_in_bytes": UNLIMITED_1,
    }
    assert found(tmp_path, files) == (8.0, 16 * GB)


def test_a_path_cannot_lead_out_of_its_hierarchy(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": MOUNT_2,
        "proc/self/cgroup": "0::/../../a\n",
        f"{AT}/cgroup.procs": "",
        "a/memory.max": "5\n",
    }
    assert found(tmp_path, files) == (8.0, 16 * GB)


@pytest.mark.parametrize(
    ("processors", "workers"), [(0.5, 2), (2.0, 2), (3.9, 3), (8.0, 8), (64.0, 8)]
)
def test_workers_follow_the_processors_between_two_and_eight(
    processors: float, workers: int
) -> None:
    assert Machine(processors, 0).workers == workers


def test_memory_is_what_the_policy_allows_as_far_as_there_is_any() -> None:
    small = Machine(2.0, 2 * GB)
    assert small.for_model(512) == 512 << 20
    assert small.for_model(4096) == int(2 * GB * SHARE)
    assert small.for_worker(4096, 2) == int(2 * GB * SHARE) // 2
    assert Machine(2.0, GB // 4).for_worker(4096, 8) == LEAST_MB << 20
    assert Machine(2.0, 64 * GB).for_worker(4096, 2) == (WORKER_MB + 4096) << 20


HERE = Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of this machine, with a limit of 700 MB."""
    for parent, name in ((HERE / "memory", "memory.limit_in_bytes"), (HERE, "memory.max")):
        made = parent / f"kedge-test-{os.getpid()}"
        try:
            made.mkdir()
            (made / name).write_text(str(700 << 20))
        except OSError:
            if made.is_dir():
                made.rmdir()
            continue
        yield made
        made.rmdir()
        return
    pytest.skip("this machine lets no group be made")


def test_a_process_in_a_real_group_reads_its_limit(group: Path) -> None:
    script = (
        f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()));"
        "from kedge.system.machine import read_machine; m = read_machine(); print(m.memory, m.memory_by)"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    memory, _, by = said.stdout.decode().strip().partition(" ")
    assert (int(memory), by) == (700 << 20, f"control group /{group.name}")
