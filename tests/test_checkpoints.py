"""Checkpoints: whole, of one run, refused when damaged. That runs go on from them is in test_training.py."""

import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
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
    return tmp_path / "folder" / "run.safetensors"


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


def flip(content, where):
    return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: flip(content, len(content) - 1),
        lambda content: flip(content, len(content) // 2),
        lambda content: flip(content, 3),
        lambda content: content.replace(b'"run":"key"', b'"run":"yek"'),
        lambda content: content.replace(b'"run"', b'"nur"'),
        lambda content: content.replace(b"__metadata__", b"__metadote__"),
    ],
    ids="empty cut short longer bit-in-last bit-in-middle bit-in-length other-run no-run no-text".split(),
)
def test_a_damaged_file_changes_nothing_and_says_so(path, damage):
    save_checkpoint(path, "key", *parts(steps=3), LOSSES)
    path.write_bytes(damage(path.read_bytes()))
    fresh = parts(seed=1)
    before, generator = tensors_of(*fresh), torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"{path.name}: not a checkpoint of this run .*begins anew"):
        assert load_checkpoint(path, "key", *fresh) == []
    assert all(map(torch.equal, tensors_of(*fresh), before))
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_file_without_text_or_that_cannot_be_read_is_damaged_too(path, monkeypatch):
    path.parent.mkdir()
    save_file({"losses": torch.zeros(2)}, path)
    with pytest.warns(UserWarning, match="not a checkpoint of this run"):
        assert load_checkpoint(path, "key", *parts()) == []

    def refuse(*arguments, **settings):
        raise PermissionError("not yours")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with pytest.warns(UserWarning, match=r"not a checkpoint of this run \(not yours\)"):
        assert load_checkpoint(path, "key", *parts()) == []


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
    save_checkpoint(path, "key", *parts(steps=3), LOSSES)
    with pytest.warns(UserWarning, match="another run's"):
        assert load_checkpoint(path, "other", *parts()) == []
    keys = ["0" * 63 + end for end in "ab"]  # the file's name has the first 16 digits alone
    save_checkpoint(path.with_name("same"), keys[0], *parts(steps=3), LOSSES)
    with pytest.warns(UserWarning, match="another run's"):
        assert load_checkpoint(path.with_name("same"), keys[1], *parts()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(path, "key", *parts()) == LOSSES


def test_the_file_holds_tensors_and_text_alone(path):
    save_checkpoint(path, "key", *parts(steps=1), LOSSES)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        assert set(file.metadata()) == {"run", "scaler", "sha256"}
    assert {"losses", "generator.cpu", "model.0.weight", "model.1.running_var", "optimizer.0.exp_avg"} <= names


def test_a_state_that_is_no_tensor_is_refused(path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return "text"

        def set_extra_state(self, state):
            pass

    model = nn.Sequential(Odd(1, 1))
    with pytest.raises(TypeError, match=r"others: 0\._extra_state"):
        run_key(model, [], {})
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(TypeError, match=r"others: 0\._extra_state"):
        save_checkpoint(path, "key", model, optimizer, torch.amp.GradScaler("cpu", enabled=False), LOSSES)
    assert not path.exists()


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
    assert checkpoint_path("unet", key) == tmp_path / "checkpoints" / "unet-0123456789abcdef.safetensors"
    assert checkpoint_path("a.b", key).name == "a.b-0123456789abcdef.safetensors"
    monkeypatch.setenv("UPCONV_CHECKPOINTS", str(tmp_path / "drive"))
    assert checkpoint_path("unet", key).parent == tmp_path / "drive"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UPCONV_CHECKPOINTS", "~/kept")
    assert checkpoint_path("unet", key).parent == tmp_path / "kept"
    monkeypatch.setenv("UPCONV_CHECKPOINTS", "")
    assert checkpoint_path("unet", key).parent == tmp_path / "checkpoints"
    elsewhere = tmp_path / "elsewhere" / "run"
    assert checkpoint_path(elsewhere, key) == elsewhere.with_name("run-0123456789abcdef.safetensors")
