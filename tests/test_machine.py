"""The tier and the device: chosen, forced, explained."""

import pytest
import torch

from upconv.book.machine import autocast_dtype, default_device, default_tier, seeded, this_machine


@pytest.fixture(autouse=True)
def unforced(monkeypatch):
    monkeypatch.delenv("UPCONV_TIER", raising=False)
    monkeypatch.delenv("UPCONV_DEVICE", raising=False)


@pytest.fixture(params=[False, True], ids=["no GPU", "GPU"])
def gpu(request, monkeypatch):
    """A machine with and without a CUDA device, as far as the choice looks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    return request.param


def test_the_tier_and_the_device_follow_the_machine(gpu):
    machine = this_machine()
    assert machine.device == default_device() == torch.device("cuda" if gpu else "cpu")
    assert machine.tier == default_tier() == ("full" if gpu else "mini")
    if gpu:
        assert str(machine).startswith("The full tier, on cuda: PyTorch sees a CUDA device, Tesla T4.\n")
        assert "`%env UPCONV_TIER=mini` (or full)" in str(machine)
    else:
        assert str(machine).startswith("The mini tier, on cpu: PyTorch sees no CUDA device.\n")
        assert "`%env UPCONV_TIER=full` (or mini)" in str(machine)


@pytest.mark.parametrize("tier", ["mini", "full"])
def test_the_tier_can_be_forced(gpu, monkeypatch, tier):
    monkeypatch.setenv("UPCONV_TIER", tier)
    machine = this_machine()
    assert machine.tier == default_tier() == tier
    assert machine.device.type == ("cuda" if gpu else "cpu")
    assert f"The {tier} tier" in str(machine) and "UPCONV_TIER says so" in str(machine)


def test_an_empty_variable_forces_nothing(gpu, monkeypatch):
    expected = this_machine()
    monkeypatch.setenv("UPCONV_TIER", "")
    monkeypatch.setenv("UPCONV_DEVICE", "")
    assert this_machine() == expected


def test_the_device_can_be_forced_and_the_tier_follows_it(gpu, monkeypatch):
    monkeypatch.setenv("UPCONV_DEVICE", "cpu")
    machine = this_machine()
    assert (machine.tier, machine.device) == ("mini", torch.device("cpu"))
    assert "UPCONV_DEVICE" in machine.reason
    monkeypatch.setenv("UPCONV_DEVICE", "meta")
    assert default_device() == torch.device("meta") and default_tier() == "full"
    monkeypatch.setenv("UPCONV_DEVICE", "cpu:0")
    assert default_device() == torch.device("cpu", 0) and default_tier() == "mini"


@pytest.mark.parametrize("call", [default_tier, this_machine])
def test_a_tier_that_there_is_not_is_an_error(monkeypatch, call):
    monkeypatch.setenv("UPCONV_TIER", "maxi")
    with pytest.raises(ValueError, match="UPCONV_TIER='maxi' must be one of 'mini', 'full'"):
        call()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x", "xla", "hpu"])
@pytest.mark.parametrize("call", [default_device, default_tier, this_machine])
def test_a_device_that_there_is_not_is_an_error(monkeypatch, call, name):
    monkeypatch.setenv("UPCONV_DEVICE", name)
    with pytest.raises(ValueError, match=f"UPCONV_DEVICE='{name}' is no device of this machine: "):
        call()


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((8, 9), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_mixed_precision_is_what_the_device_is_made_for(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for device in ("cuda", "cuda:1", torch.device("cuda")):
        assert autocast_dtype(device) is dtype
    for device in ("cpu", "meta", torch.device("cpu")):
        assert autocast_dtype(device) is None


def test_a_generator_is_the_devices_own():
    before = torch.get_rng_state()
    values = torch.rand(5, generator=seeded(3))
    assert torch.equal(values, torch.rand(5, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(values, torch.rand(5, generator=seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded(0).device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_generator_of_a_gpu():
    assert seeded(0, "cuda").device.type == "cuda"
    torch.rand(5, generator=seeded(0, "cuda"), device="cuda")
