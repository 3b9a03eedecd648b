"""Devices, precision and random state."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medshared import gpu


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture(autouse=True)
def settings_as_before() -> Any:
    rng, workspace = gpu.capture_rng(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    yield
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    if workspace is None:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    gpu.restore_rng(rng)


@pytest.mark.usefixtures("no_cuda")
def test_devices_without_cuda() -> None:
    assert gpu.select_device() == torch.device("cpu")
    assert gpu.select_device("CPU") == torch.device("cpu")
    with pytest.raises(gpu.DeviceError, match=r"device 'cuda:0' was asked for, but .*; use 'auto' or 'cpu'"):
        gpu.select_device("cuda:0")
    with pytest.raises(gpu.DeviceError, match="no Mac with Metal"):
        gpu.select_device("mps")


@pytest.mark.usefixtures("two_cuda")
def test_devices_with_cuda() -> None:
    assert gpu.select_device("auto") == gpu.select_device("cuda") == torch.device("cuda")
    assert gpu.select_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(gpu.DeviceError, match="the visible ones are cuda:0 to cuda:1"):
        gpu.select_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", ""])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(gpu.DeviceError, match="expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"):
        gpu.select_device(name)


@pytest.mark.parametrize(
    ("setting", "device", "amp", "native", "expected"),
    [
        ("auto", "cpu", True, False, "32-true"),
        ("auto", "cuda", True, True, "bf16-mixed"),
        ("auto", "cuda", True, False, "16-mixed"),
        ("auto", "cuda:1", False, True, "32-true"),
        ("32", "cuda", True, True, "32-true"),
        ("bf16", "cpu", False, False, "bf16-mixed"),
        ("fp16", "cuda", False, True, "16-mixed"),
        ("16-mixed", "cuda", True, True, "16-mixed"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, setting: str, device: str, amp: bool, native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    assert gpu.resolve_precision(setting, device, amp) == expected


def test_precision_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    with pytest.raises(gpu.DeviceError, match="'fp16' needs CUDA, but the device is 'cpu'"):
        gpu.resolve_precision("fp16", torch.device("cpu"))
    with pytest.raises(gpu.DeviceError, match="'bf16' needs an NVIDIA GPU"):
        gpu.resolve_precision("bf16", "cuda")
    with pytest.raises(gpu.DeviceError, match="unknown precision 'half'"):
        gpu.resolve_precision("half", "cpu")


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002
        float(np.random.standard_normal()),  # noqa: NPY002
        *torch.rand(3).tolist(),
        *torch.randn(2).tolist(),
        *(torch.rand(2, device="cuda").tolist() if torch.cuda.is_available() else []),
    ]


def test_seeding_repeats_and_differs() -> None:
    gpu.seed_everything(3)
    first = draw()
    gpu.seed_everything(3)
    assert draw() == first
    gpu.seed_everything(4)
    assert not set(draw()) & set(first)
    gpu.seed_everything(2**63 - 1)
    with pytest.raises(ValueError, match="at least 0"):
        gpu.seed_everything(-1)


@pytest.mark.slow  # torch imports its compiler
def test_deterministic_is_set_and_unset() -> None:
    gpu.seed_everything(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    gpu.seed_everything(1)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("warm_up", range(6))
def test_random_state_survives_safe_loading(tmp_path: Path, warm_up: int) -> None:
    gpu.seed_everything(11)
    for _ in range(warm_up):  # odd counts leave half of a pair of normal numbers behind
        random.gauss(0, 1)
        np.random.standard_normal()  # noqa: NPY002
        torch.randn(1)
    torch.save(gpu.capture_rng(), tmp_path / "rng.pt")
    expected = draw()
    gpu.seed_everything(99)
    draw()
    gpu.restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected


def test_restoring_checks_first() -> None:
    state = gpu.capture_rng()
    del state["torch"]
    before = random.getstate()
    with pytest.raises(KeyError, match="random state lacks torch; it has python, numpy, cuda"):
        gpu.restore_rng(state)
    assert random.getstate() == before


@pytest.mark.usefixtures("no_cuda")
def test_states_of_absent_devices_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    state = {**gpu.capture_rng(), "cuda": [torch.zeros(16, dtype=torch.uint8)]}
    gpu.restore_rng(state)
    assert "1 CUDA devices, 0 here" in caplog.text


def test_derived_seeds_do_not_change() -> None:
    """Literal values: another platform or Python version must give the same."""
    assert gpu.derive_seed(42) == 6633465526381790741
    assert gpu.derive_seed(42, "fold", 3) == 6127042104838590831
    assert gpu.derive_seed(np.int64(42), "fold", np.int32(3)) == gpu.derive_seed(42, "fold", 3)


def test_derived_seeds_in_another_process() -> None:
    code = "from medshared.gpu import derive_seed; print(derive_seed(1, 'a', 2, 'é'))"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(out.stdout) == gpu.derive_seed(1, "a", 2, "é")


tags = st.lists(st.integers() | st.text(st.characters(codec="utf-8")), max_size=4)


@given(tags, tags)
def test_derived_seeds_are_in_range_and_apart(a: list[int | str], b: list[int | str]) -> None:
    first, second = gpu.derive_seed(0, *a), gpu.derive_seed(0, *b)
    assert 0 <= first < 2**63
    assert (first == second) == (a == b)


def test_tags_of_wrong_type() -> None:
    with pytest.raises(TypeError):
        gpu.derive_seed(1, 2.5)  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the oracle needs /proc (Linux)")
def test_peak_memory_of_the_process() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    (high_water,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    assert gpu.peak_memory_bytes("cpu") == pytest.approx(high_water, rel=0.02)
    assert gpu.peak_memory_bytes() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA random state and memory need a GPU")
def test_cuda_state_and_memory() -> None:
    device = gpu.select_device("cuda")
    torch.cuda.reset_peak_memory_stats()
    tensor = torch.zeros(1_000_000, device=device)
    assert gpu.peak_memory_bytes(device) >= tensor.numel() * 4
    state = gpu.capture_rng()
    expected = torch.rand(4, device=device).tolist()
    torch.rand(100, device=device)
    gpu.restore_rng({**state, "torch": state["torch"].to(device)})
    assert torch.rand(4, device=device).tolist() == expected


def test_one_thread_is_for_a_while():
    before = torch.get_num_threads()
    with gpu.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with contextlib.suppress(ValueError), gpu.one_thread():
        raise ValueError
    assert torch.get_num_threads() == before
