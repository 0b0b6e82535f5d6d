"""Cores are counted as a container has them, not as its host does."""

import math
import os
from pathlib import Path

import pytest

from model import cgroups, cores
from model.cores import cpu_quota, usable_cores


def version_2(root: Path, **groups: str) -> Path:
    """Write `cpu.max` of groups, named with __ for /."""
    for name, text in groups.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{text}\n")
    return root


def version_1(folder: Path, quota: int, period: int = 100_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def quota_of(membership: str, root: Path) -> float:
    """Read a quota where a process is a member of these groups."""
    (root / "membership").write_text(membership)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "MEMBERSHIP", root / "membership")
        patch.setattr(cgroups, "ROOT", root)
        return cpu_quota()


def test_version_2_gives_quota_over_period(tmp_path: Path) -> None:
    version_2(tmp_path, app="150000 50000")
    assert quota_of("0::/app\n", tmp_path) == 3


def test_version_2_without_a_limit_gives_none(tmp_path: Path) -> None:
    version_2(tmp_path, app="max 100000")
    assert quota_of("0::/app\n", tmp_path) == math.inf


def test_a_group_above_limits_those_below(tmp_path: Path) -> None:
    version_2(tmp_path, pod="200000 100000", pod__app="400000 100000", pod__app__job="max 100000")
    assert quota_of("0::/pod/app/job\n", tmp_path) == 2


def test_in_a_namespace_the_root_is_the_group_itself(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert quota_of("0::/\n", tmp_path) == 2.5


@pytest.mark.parametrize("hierarchy", ["cpu", "cpu,cpuacct"])
def test_version_1_gives_quota_over_period(tmp_path: Path, hierarchy: str) -> None:
    version_1(tmp_path / hierarchy / "app", 400_000)
    assert quota_of(f"5:memory:/other\n4:{hierarchy}:/app\n", tmp_path) == 4


def test_version_1_finds_the_mount_that_is_named_after_cpu_alone(tmp_path: Path) -> None:
    version_1(tmp_path / "cpu" / "app", 400_000)
    assert quota_of("4:cpu,cpuacct:/app\n", tmp_path) == 4


def test_version_1_without_a_limit_gives_none(tmp_path: Path) -> None:
    version_1(tmp_path / "cpu" / "app", -1)
    assert quota_of("4:cpu:/app\n", tmp_path) == math.inf


def test_version_1_in_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    version_1(tmp_path / "cpu", 100_000)
    assert quota_of("4:cpu:/docker/3f8a\n", tmp_path) == 1


def test_both_versions_at_once_give_the_least(tmp_path: Path) -> None:
    version_1(tmp_path / "cpu", 300_000)
    version_2(tmp_path, unified="200000 100000")
    assert quota_of("1:cpu:/\n0::/\n", tmp_path) == 2


@pytest.mark.parametrize("membership", ["", "0::/app\n", "3:cpuset:/app\n", "1:name=a:b:/app\n"])
def test_no_file_is_no_limit(tmp_path: Path, membership: str) -> None:
    version_1(tmp_path / "cpuset" / "app", 100_000)
    assert quota_of(membership, tmp_path) == math.inf


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend eight hardware threads, two to a core, of which any may be used."""
    for thread in range(8):
        folder = tmp_path / "cpus" / f"cpu{thread}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{thread % 4},{thread % 4 + 4}\n")
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path / "cpus")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_two_threads_of_a_core_count_once(machine: Path) -> None:
    assert usable_cores() == 4


def test_affinity_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 6})
    assert usable_cores() == 2


@pytest.mark.parametrize(("quota", "expected"), [(900, 4), (399, 3), (150, 1), (20, 1)])
def test_the_least_counts_rounded_down_to_at_least_one(
    machine: Path, quota: int, expected: int
) -> None:
    (machine / "cpu.max").write_text(f"{quota} 100\n")
    assert usable_cores() == expected


def test_where_topology_is_hidden_each_thread_is_a_core(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "TOPOLOGY", machine / "none")
    assert usable_cores() == 8


def test_without_control_groups_the_affinity_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "MEMBERSHIP", machine / "none")
    assert usable_cores() == 4


def test_where_there_is_no_affinity_all_cores_count(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
