import os
import stat
import sys
from types import SimpleNamespace

import pytest

from cptlib import memory
from cptlib.memory import Memory, MemoryLog, Stage

TWO = "0, GPU-aaa, Tesla T4, 1024, 15360, [N/A]\\n1, GPU-bbb, Tesla T4, 2048, 15360, [N/A]\\n"
UNLIKE = "0, GPU-aaa, Tesla T4, 1024, 15360, [N/A]\\n1, GPU-bbb, NVIDIA A100-SXM4-40GB, 20480, 40960, Disabled\\n"
FIRST, SECOND = Memory("Tesla T4", 1.0, 15.0), Memory("Tesla T4", 2.0, 15.0)
A100 = Memory("NVIDIA A100-SXM4-40GB", 20.0, 40.0)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a stand-in first on the PATH that prints what it is told to."""

    def install(output, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{output}'\nexit {status}\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return install


@pytest.fixture
def no_torch(monkeypatch):
    """This process has not loaded torch, which alone knows its GPU for certain."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, FIRST),
        ("1", SECOND),
        ("1,0", SECOND),
        (" 1 , 0", SECOND),
        ("GPU-bbb", SECOND),
        ("GPU-b,GPU-a", SECOND),
        ("", None),
        ("-1", None),
        ("7", None),
        ("NoDevFiles", None),
        ("MIG-aaa", None),
        ("MIG-GPU-aaa/1/0", None),
    ],
)
def test_before_torch_is_loaded_nvidia_smi_is_asked(nvidia_smi, no_torch, monkeypatch, visible, expected):
    nvidia_smi(TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert memory.gpu_memory() == expected


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [("1", None, None), ("1", "FASTEST_FIRST", None), ("1", "PCI_BUS_ID", A100), ("GPU-bbb", None, A100)],
)
def test_the_number_of_one_of_unlike_gpus_is_not_nvidia_smis(
    nvidia_smi, no_torch, monkeypatch, visible, order, expected
):
    nvidia_smi(UNLIKE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert memory.gpu_memory() == expected


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("WARNING: infoROM is corrupted at gpu 0000:3B:00.0\\n0, GPU-aaa, Tesla T4, 1024, 15360, [N/A]\\n", "Tesla T4"),
        ("a, line, of, six, odd, fields\\n0, GPU-aaa, Tesla T4, 1024, 15360, [N/A]\\n", "Tesla T4"),
        ("0, GPU-aaa, Graphics Device, rev. 2, 1024, 15360, Disabled\\n", "Graphics Device, rev. 2"),
        ("0, GPU-aaa, NVIDIA GB10, [N/A], [N/A], [N/A]\\n", None),
        ("0, GPU-aaa, NVIDIA A100-SXM4-40GB, 1024, 15360, Enabled\\n", None),  # in MIG slices: the count is of all
        ("0, GPU-aaa, NVIDIA A100-SXM4-40GB, [Insufficient Permissions], 15360, Enabled\\n", None),
        ("No devices were found\\n", None),
        ("", None),
    ],
)
def test_lines_that_are_no_row_are_passed_over(nvidia_smi, no_torch, output, name):
    nvidia_smi(output)
    assert memory.gpu_memory() == (name and Memory(name, 1.0, 15.0))


def test_no_nvidia_smi_or_a_failing_one_is_none(nvidia_smi, no_torch, monkeypatch):
    nvidia_smi("NVIDIA-SMI has failed because it could not communicate with the driver", status=9)
    assert memory.gpu_memory() is None
    monkeypatch.setenv("PATH", "")
    assert memory.gpu_memory() is None


@pytest.mark.parametrize("visible", ["0", "MIG-aaa", "GPU-bbb", "3,1"])
@pytest.mark.parametrize("output", [TWO, UNLIKE, "", "0, GPU-aaa, NVIDIA A100-SXM4-40GB, [N/A], [N/A], Enabled\\n"])
def test_what_torch_knows_of_its_gpu_goes_before_nvidia_smi(nvidia_smi, monkeypatch, gpu, output, visible):
    """A slice of a GPU (MIG), a GPU of AMD's, a container, any order of the GPUs."""
    nvidia_smi(output)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu(free=4.0, total=9.75, name="NVIDIA A100-SXM4-40GB MIG 2g.10gb")
    assert memory.gpu_memory() == memory.probe() == Memory("NVIDIA A100-SXM4-40GB MIG 2g.10gb", 5.75, 9.75)


@pytest.mark.cpu("it is about a torch that uses no GPU")
def test_a_gpu_that_torch_does_not_use_is_not_this_processs(nvidia_smi):
    nvidia_smi(TWO)
    assert memory.gpu_memory() is None and memory.peak_gpu_gb() is None and memory.gpu_name() is None
    assert memory.probe().device == "CPU"


@pytest.mark.gpu
def test_torch_and_nvidia_smi_count_alike():
    import subprocess

    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    query = ["nvidia-smi", f"--id={uuid}", "--query-gpu=name,memory.used", "--format=csv,noheader,nounits"]
    found = memory.gpu_memory()
    name, used = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().rsplit(", ", 1)
    assert found.device == name and found.used_gb == pytest.approx(int(used) / 1024, abs=0.05)


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


def test_of_a_shared_gpu_this_process_is_counted_where_nvidia_smi_knows_it(nvidia_smi, gpu):
    gpu(free=5.0, total=15.0, uuid="5e-bb")
    own = os.getpid()
    nvidia_smi(f"GPU-5e-aa, {own}, 1024\\nGPU-5e-bb, 1, 900\\nGPU-5e-bb, {own}, 2048\\nGPU-5e-cc, {own}, 512\\n")
    assert memory.gpu_process_gb() == 2.0 and memory.probe() == Memory("Tesla T4", 2.0, 15.0)
    for unknown in (f"GPU-5e-aa, {own}, 1024\\n", f"GPU-5e-bb, {own}, [N/A]\\n", f"GPU-5e-bb, 1{own}, 9\\n", ""):
        nvidia_smi(unknown)
        assert memory.gpu_process_gb() is None and memory.probe() == Memory("Tesla T4", 10.0, 15.0)


def test_without_torch_no_peak_is_known(nvidia_smi, no_torch):
    nvidia_smi(TWO)
    assert memory.gpu_process_gb() is None and memory.peak_gpu_gb() is None and memory.probe() == FIRST


def test_a_machine_without_a_gpu_cannot_be_held_to_less(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert memory.hold_to(15) is None and memory.available_gb() == float("inf") and memory.peak_gpu_gb() is None


def test_free_memory_is_the_machines_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * memory.GB, total=9 * memory.GB))
    assert memory.free_gb() == 3.0 and memory.held_gb() == 0.0


@pytest.mark.parametrize(("limit", "free"), [("", 11.0), ("8", 3.0)])
def test_free_memory_of_a_gpu_counts_torchs_spare_blocks_and_ends_at_the_limit(monkeypatch, gpu, limit, free):
    gpu(free=10, total=20, reserved=6, allocated=5)
    monkeypatch.setenv("CPTLIB_GPU_GB", limit)
    assert memory.free_gb() == free and memory.held_gb() == 5.0


@pytest.mark.parametrize(
    ("counts", "own", "limit", "available"),
    [
        ({"free": 14.25, "total": 15.0}, None, "", 15.0),  # nobody else's: CUDA's own share is this process's
        ({"free": 4.0, "total": 15.0}, None, "", 4.0 + memory.CUDA_GB),  # a forgotten notebook has the rest
        ({"free": 4.0, "total": 15.0, "reserved": 6.0, "allocated": 2.0}, None, "", 10.0 + memory.CUDA_GB),
        ({"free": 4.0, "total": 15.0, "reserved": 6.0, "allocated": 2.0}, 6.5, "", 10.5),
        ({"free": 60.0, "total": 80.0}, 0.5, "24", 24.0),
        ({"free": 9.0, "total": 80.0}, 0.5, "24", 9.5),
    ],
)
def test_what_a_process_may_use_is_what_is_free_and_what_it_holds(
    nvidia_smi, monkeypatch, gpu, counts, own, limit, available
):
    gpu(**counts)
    nvidia_smi(f"GPU-5e-aa, {os.getpid()}, {int(own * 1024)}\\n" if own else "")
    monkeypatch.setenv("CPTLIB_GPU_GB", limit)
    assert memory.available_gb() == available


def test_garbage_is_not_held(monkeypatch):
    """unsloth's models refer to themselves: only the garbage collector frees them."""

    class Model:
        def __init__(self):
            self.me, there[0] = self, 7 * memory.GB

        def __del__(self):
            there[0] = 0

    there = [0]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: there[0])
    model = Model()
    assert memory.held_gb() == 7.0
    del model
    assert memory.held_gb() == 0.0
