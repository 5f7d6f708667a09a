import os
import stat
import sys
from types import SimpleNamespace

import pytest

from cptlib import memory
from cptlib.memory import Memory, MemoryLog, Stage

TWO = "0, GPU-aaa, Tesla T4, 1024, 15360\n1, GPU-bbb, NVIDIA A100-SXM4-40GB, 20480, 40960\n"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a stand-in first on the PATH that prints what it is told to."""

    def install(output, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{output}'\nexit {status}\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, Memory("Tesla T4", 1.0, 15.0)),
        ("1", Memory("NVIDIA A100-SXM4-40GB", 20.0, 40.0)),
        ("1,0", Memory("NVIDIA A100-SXM4-40GB", 20.0, 40.0)),
        ("GPU-bbb", Memory("NVIDIA A100-SXM4-40GB", 20.0, 40.0)),
        ("", None),
        ("-1", None),
        ("7", None),
    ],
)
def test_the_gpu_of_this_process_is_read(nvidia_smi, monkeypatch, visible, expected):
    nvidia_smi(TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert memory.gpu_memory() == expected


@pytest.mark.parametrize("output", ["0, GPU-aaa, Orin, [N/A], [N/A]\n", ""])
def test_a_count_that_cannot_be_had_is_none(nvidia_smi, output):
    nvidia_smi(output)
    assert memory.gpu_memory() is None


def test_no_nvidia_smi_or_a_failing_one_is_none(nvidia_smi, monkeypatch):
    nvidia_smi("NVIDIA-SMI has failed because it could not communicate with the driver", status=9)
    assert memory.gpu_memory() is None
    monkeypatch.setenv("PATH", "")
    assert memory.gpu_memory() is None


def test_process_memory_sees_an_allocation():
    before = memory.process_memory()
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert memory.process_memory().used_gb - before.used_gb > 0.15
    assert memory.peak_process_gb() >= memory.process_memory().used_gb * 0.95
    del block


def make_log(*used):
    log = MemoryLog()
    log.stages = [Stage(f"stage {n}", Memory("T4", gb, 15.0), {}) for n, gb in enumerate(used)]
    return log


def test_the_log_prints_and_keeps_each_stage(capsys):
    log = MemoryLog()
    log.note("first")
    log.note("second")
    assert [stage.name for stage in log.stages] == ["first", "second"]
    assert "GB in use" in capsys.readouterr().out


def test_the_lines_of_the_breakdown_are_where_they_belong():
    ax = memory.plot_breakdown(make_log(4.8, 5.0, 6.2, 10.1))
    assert [line.get_ydata()[0] for line in ax.lines] == [10.1, 15.0]
    tops = sorted(bar.get_y() + bar.get_height() for bar in ax.patches)
    assert tops == pytest.approx([4.8, 5.0, 6.2, 10.1])


def test_a_small_run_on_a_large_device_fills_the_figure():
    for used, top in ((6.0, 15.0), (1.0, 1.0)):  # of the log's 15 GB
        ax = memory.plot_breakdown(make_log(0.5, used))
        assert ax.get_ylim()[1] == pytest.approx(1.05 * top)
        assert "15.00 GB  there is" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_freed_memory_comes_off_the_latest_stages():
    parts = memory._parts(make_log(4.0, 6.0, 5.0, 7.0).stages)
    assert [(round(gb, 6), round(bottom, 6)) for _, gb, bottom in parts] == [(4, 0), (1, 4), (0, 5), (2, 5)]
    assert sum(gb for _, gb, _ in parts) == pytest.approx(7.0)


def test_an_empty_log_is_refused():
    with pytest.raises(ValueError, match="log is empty"):
        memory.plot_breakdown(MemoryLog())


def test_the_log_needs_no_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where only the light dependencies are installed
    MemoryLog().note("start")
    assert "start: " in capsys.readouterr().out


def test_of_a_shared_gpu_this_process_is_counted_where_nvidia_smi_knows_it(nvidia_smi):
    nvidia_smi(f"1, 900\n{os.getpid()}, 2048\n")
    assert memory.gpu_process_gb() == 2.0
    nvidia_smi("1, 900\n")
    assert memory.gpu_process_gb() is None
    nvidia_smi(TWO)
    assert memory.probe() == Memory("Tesla T4", 1.0, 15.0)


def test_a_machine_without_a_gpu_cannot_be_held_to_less(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert memory.hold_to(15) is None and memory.available_gb() == float("inf") and memory.peak_gpu_gb() is None


def test_free_memory_is_the_machines_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * memory.GB, total=9 * memory.GB))
    assert memory.free_gb() == 3.0


@pytest.mark.parametrize(("limit", "free"), [("", 11.0), ("8", 3.0)])
def test_free_memory_of_a_gpu_counts_torchs_spare_blocks_and_ends_at_the_limit(monkeypatch, limit, free):
    monkeypatch.setenv("CPTLIB_GPU_GB", limit)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(total_memory=20 * memory.GB))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (10 * memory.GB, 20 * memory.GB))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 6 * memory.GB)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: 5 * memory.GB)
    assert memory.free_gb() == free
