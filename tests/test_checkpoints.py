"""Checkpoints: whole, of one run, refused when damaged. That runs go on from them is in test_training.py."""

import hashlib
import io
import os
import warnings
import zipfile
from functools import partial

import pytest
import torch
from torch import nn

from upconv.book.checkpoints import checkpoint_path, load_checkpoint, run_key, save_checkpoint

LOSSES = [0.5, 0.1 + 0.2, 1e-30]


def parts(seed=0, steps=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 5, 5)).square().sum().backward()
        optimizer.step()
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=False)


def tensors_of(model, optimizer, _):
    values = [state[name] for state in optimizer.state_dict()["state"].values() for name in sorted(state)]
    return [tensor.clone() for tensor in [*model.state_dict().values(), *values]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "run.pt"


def test_what_was_saved_comes_back(path):
    saved = parts(steps=3)
    save_checkpoint(path, "key", *saved, LOSSES)
    generator = torch.get_rng_state()
    fresh = parts(seed=1)
    assert load_checkpoint(path, "key", *fresh) == LOSSES
    assert all(map(torch.equal, tensors_of(*fresh), tensors_of(*saved)))
    assert len(tensors_of(*fresh)) == 7 + 4 * 3
    assert torch.equal(torch.get_rng_state(), generator)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_scale_of_the_loss_comes_back(path):
    model, optimizer, _ = parts(steps=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=5)
    save_checkpoint(path, "key", model, optimizer, scaler, LOSSES)
    fresh = torch.amp.GradScaler("cpu")
    load_checkpoint(path, "key", *parts()[:2], fresh)
    assert fresh.state_dict() == scaler.state_dict() and fresh.get_scale() == 8.0


def test_layers_that_share_a_weight_are_saved(path):
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    model[1].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    save_checkpoint(path, "key", model, optimizer, torch.amp.GradScaler("cpu", enabled=False), LOSSES)
    expected = model[0].weight.detach().clone()
    model[0].weight.data.zero_()
    load_checkpoint(path, "key", model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    assert model[1].weight is model[0].weight and torch.equal(model[0].weight, expected)


def test_without_a_file_nothing_is_done(path):
    fresh = parts(seed=1)
    before = tensors_of(*fresh)
    assert load_checkpoint(path, "key", *fresh) == []
    assert all(map(torch.equal, tensors_of(*fresh), before))


def assert_refused(path, because):
    fresh = parts(seed=1)
    before, generator = tensors_of(*fresh), torch.get_rng_state()
    with pytest.warns(UserWarning) as found:
        assert load_checkpoint(path, "key", *fresh) == []
    [warning] = found
    assert f"{path}: not a checkpoint of this run ({because}" in str(warning.message)
    assert str(warning.message).endswith("; it begins anew")
    assert all(map(torch.equal, tensors_of(*fresh), before))
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_damaged_file_changes_nothing_and_says_so(path):
    """Cut, longer, or with one bit changed: in its pickle, in numbers, in the directory of the zip file, anywhere."""
    save_checkpoint(path, "key", *parts(steps=3), LOSSES)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        begins = {info.filename.split("/", 1)[1]: info.header_offset for info in archive.infolist()}
        directory = archive.start_dir
    places = [begins["data.pkl"] + 200, begins["data/0"] + 150, begins["data/8"] + 150, directory + 50, len(whole) - 1]
    flipped = [whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in [*places, *range(0, len(whole), 997)]]
    for damaged in (
        b"",
        whole[:20],
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-1],
        whole + b"x",
        whole * 2,
        *flipped,
    ):
        path.write_bytes(damaged)
        assert_refused(path, "it is not what was written")
    path.write_bytes(whole)
    assert load_checkpoint(path, "key", *parts()) == LOSSES


class Malicious:
    """What runs a command wherever its pickle is read without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_file_that_would_run_something_runs_nothing(path, tmp_path):
    """Even with the right SHA-256, which anyone can compute."""
    buffer = io.BytesIO()
    torch.save({"run": "key", "model": Malicious(tmp_path / "it ran")}, buffer)
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())
    assert_refused(path, "Weights only load failed")
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_cannot_be_read_is_not_used(path, monkeypatch):
    def refuse(self):
        raise PermissionError("not yours")

    save_checkpoint(path, "key", *parts(steps=3), LOSSES)
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert_refused(path, "not yours")


def test_buffers_that_a_state_leaves_out_come_back(path):
    def counting(count):
        model, *others = parts()
        model.register_buffer("count", torch.tensor(count), persistent=False)
        return model, *others

    save_checkpoint(path, "key", *counting(3.0), LOSSES)
    fresh = counting(0.0)
    buffer = fresh[0].count
    load_checkpoint(path, "key", *fresh)
    assert fresh[0].count is buffer and buffer == 3


def test_generators_of_gpus_come_back_where_there_are_such(path, monkeypatch):
    """A file of a machine with two GPUs, read on machines with one and with none, and the other way round."""
    states = [torch.full((16,), number, dtype=torch.uint8) for number in (1, 2)]
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    save_checkpoint(path, "key", *parts(steps=1), LOSSES)
    for count in (2, 1, 0):
        found = {}
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index, found=found: found.update({index: state}))
        assert load_checkpoint(path, "key", *parts()) == LOSSES
        assert {index: state[0].item() for index, state in found.items()} == {k: k + 1 for k in range(count)}
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
    save_checkpoint(path, "key", *parts(steps=1), LOSSES)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert load_checkpoint(path, "key", *parts()) == LOSSES and found == {}


def test_another_runs_file_is_not_continued(path):
    keys = ["0" * 63 + end for end in "ab"]  # the file's name has the first 16 digits alone
    save_checkpoint(path, keys[0], *parts(steps=3), LOSSES)
    with pytest.warns(UserWarning, match="another run's"):
        assert load_checkpoint(path, keys[1], *parts()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(path, keys[0], *parts()) == LOSSES


def test_a_state_that_is_no_tensor_is_refused():
    class Odd(nn.Linear):
        def get_extra_state(self):
            return "text"

        def set_extra_state(self, state):
            pass

    with pytest.raises(TypeError, match=r"others: 0\._extra_state"):
        run_key(nn.Sequential(Odd(1, 1)), [], {})


def network(change=lambda model: None):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 3)
    model = nn.Sequential(*layers)
    model.odd_sizes = "refuse"  # a setting that a network does not print
    model.register_buffer("count", torch.zeros(()), persistent=False)
    change(model)
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].weight.data.mul_(1.001),
        lambda model: model[1].running_mean.add_(1e-3),
        lambda model: model.count.add_(1),
        lambda model: model[0].weight.requires_grad_(False),
        lambda model: setattr(model[2], "p", 0.4),
        lambda model: setattr(model, "odd_sizes", "pad"),
        lambda model: model.__setitem__(2, nn.FeatureAlphaDropout(0.5)),
    ],
    ids="weight average buffer frozen setting unprinted-setting layer".split(),
)
def test_a_changed_model_is_another_run(change):
    assert run_key(network(change), [], {}) != run_key(network(), [], {})


def test_the_same_model_is_the_same_run_in_either_mode():
    assert run_key(network(nn.Module.eval), [], {}) == run_key(network(), [], {})


def l1_loss(made, wanted):
    return (made - wanted).abs().mean()


def losses():
    kind = nn.CrossEntropyLoss
    yield from (None, l1_loss, nn.functional.l1_loss, nn.HuberLoss(delta=0.01), kind(), kind(label_smoothing=0.1))
    yield from (kind(ignore_index=2), kind(weight=torch.ones(3)), kind(weight=torch.arange(3.0)))


def test_losses_are_told_apart_by_their_kind_and_settings():
    first, again = ([run_key(network(), [], dict(loss=loss)) for loss in losses()] for _ in range(2))
    assert first == again and len(set(first)) == len(first) == 9


@pytest.mark.parametrize("loss", [lambda made, wanted: 0, partial(l1_loss), nn.L1Loss().forward])
def test_a_loss_that_cannot_be_told_from_others_is_refused(loss):
    with pytest.raises(TypeError, match=r"a checkpoint cannot tell .* from others"):
        run_key(network(), [], dict(loss=loss))


def test_the_key_is_of_names_dtypes_shapes_and_values():
    model = nn.Conv2d(1, 1, 1)
    given = torch.arange(6).float()
    key = run_key(model, [given, None], {"steps": 1})
    assert len(key) == 64 and key == run_key(model, [given.clone(), None], {"steps": 1})
    others = [
        run_key(model, [None, given], {"steps": 1}),
        run_key(model, [given.reshape(2, 3), None], {"steps": 1}),
        run_key(model, [given.double(), None], {"steps": 1}),
        run_key(model, [given.view(torch.int32), None], {"steps": 1}),
        run_key(model, [given + 1e-7, None], {"steps": 1}),
        run_key(model, [given, None], {"steps": 2}),
        run_key(nn.Conv2d(1, 1, 1, padding_mode="zeros").requires_grad_(False), [given, None], {"steps": 1}),
    ]
    assert len({key, *others}) == 8
    strided = torch.arange(12).float()[::2]
    assert run_key(model, [strided], {}) == run_key(model, [strided.contiguous()], {})
    for odd in (torch.tensor(1.0), torch.zeros(0, 2), torch.ones(3, dtype=torch.bfloat16), torch.ones(2).bool()):
        assert run_key(model, [odd], {}) != run_key(model, [], {})


def test_where_the_file_is(monkeypatch, tmp_path):
    monkeypatch.setenv("UPCONV_CACHE", str(tmp_path))
    key = "0123456789abcdef" * 4
    assert checkpoint_path("unet", key) == tmp_path / "checkpoints" / "unet-0123456789abcdef.pt"
    assert checkpoint_path("a.b", key).name == "a.b-0123456789abcdef.pt"
    monkeypatch.setenv("UPCONV_CHECKPOINTS", str(tmp_path / "drive"))
    assert checkpoint_path("unet", key).parent == tmp_path / "drive"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UPCONV_CHECKPOINTS", "~/kept")
    assert checkpoint_path("unet", key).parent == tmp_path / "kept"
    monkeypatch.setenv("UPCONV_CHECKPOINTS", "")
    assert checkpoint_path("unet", key).parent == tmp_path / "checkpoints"
    elsewhere = tmp_path / "elsewhere" / "run"
    assert checkpoint_path(elsewhere, key) == elsewhere.with_name("run-0123456789abcdef.pt")
