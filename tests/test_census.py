"""The census: its table holds the rows of its models, its counts add up, and a few are made again."""

import csv
import os
import re
import socket
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tools.census import __main__ as census
from tools.census.look import COLUMNS, FORMS, KINDS, Steps, called, fold, row
from tools.census.make import build, offline, stand_in
from tools.census.models import MODELS, Model, New, new

ROOT = Path(__file__).resolve().parents[1]
ROWS = census.read(census.PATH)
NUMBERS = COLUMNS[4 : COLUMNS.index("published_input")]


def pins(path):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_table_has_a_row_for_each_model_in_order():
    assert list(ROWS) == [(model.package, model.name) for model in MODELS]
    assert list(next(iter(ROWS.values()))) == list(COLUMNS)
    for (package, name), found in ROWS.items():
        model = next(model for model in MODELS if (model.package, model.name) == (package, name))
        assert found["task"] == model.task
        assert (found["published_macs"] != "") is bool(model.published)


def test_the_versions_are_those_of_the_requirements():
    pinned, ours = pins(ROOT / "code/tools/census/requirements.txt"), pins(ROOT / "requirements.txt")
    for found in ROWS.values():
        assert (found["version"], found["torch"]) == (pinned[found["package"]], pinned["torch"])
    for package in ("torch", "monai", "unet", "diffusers"):
        assert ours[package] == pinned[package]


def test_the_counts_add_up():
    for found in ROWS.values():
        count = {column: int(found[column]) for column in NUMBERS}
        transposed = sum(count[form] for form in FORMS if form.startswith("transposed"))
        interpolated = sum(count[form] for form in FORMS if re.match("nearest|linear|cubic", form))
        assert sum(count[form] for form in FORMS) == count["steps"]
        assert sum(count[kind] for kind in KINDS if kind.startswith("transposed")) == transposed
        assert count["divisible"] <= count["strided"] <= transposed
        assert count["exact_by_rewrite"] + count["exact_by_backend"] <= interpolated
        assert count["shuffles_by_rewrite"] <= count["pixel_shuffle"]
        assert count["macs_folded"] > 0 and count["macs_rewritten"] <= count["macs"]
        assert count["macs_folded"] <= 1.01 * count["macs_rewritten"]  # more, where it folds through a sum
        assert (count["macs_folded"] != count["macs_rewritten"]) <= (count["exact_by_backend"] > 0)
        assert found["published_macs"] == "" or -0.2 < float(found["published_saved"]) < 1


AGAIN = [("monai", "VoxelMorphUNet"), ("unet", "UNet2D"), ("diffusers", "AutoencoderTiny")]


@pytest.mark.parametrize("key", AGAIN, ids=" ".join)
def test_a_row_made_again_is_the_same(key):
    [model] = [model for model in MODELS if (model.package, model.name) == key]
    made = {column: str(value) for column, value in row(model).items()}
    assert made | dict(torch="", date="") == ROWS[key] | dict(torch="", date="")


class Everything(nn.Module):
    """Enlarges in every way once, but reads what nearest upsampling gives in three."""

    def __init__(self):
        super().__init__()
        self.transposed = nn.ModuleList(nn.ConvTranspose2d(2, 2, k, s) for k, s in ((2, 2), (4, 2), (3, 2), (6, 3)))
        self.line, self.one = nn.ConvTranspose1d(2, 2, 5, 2), nn.ConvTranspose2d(2, 2, 3)
        self.conv3, self.conv1, self.four = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        for layer in self.transposed:
            layer(x)
        self.line(x[..., 0]), self.one(x)
        large = F.interpolate(x, scale_factor=2.0)
        self.conv3(torch.cat([F.pad(large, (1, 0)), F.pad(large, (0, 1))], 1))
        self.conv1(F.interpolate(x, scale_factor=2.0))
        F.interpolate(x, scale_factor=2.0) + 1
        F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        F.interpolate(x, scale_factor=2.0, mode="bicubic")
        F.interpolate(x, scale_factor=0.5), F.interpolate(x, size=x.shape[2:], mode="bilinear")  # no steps
        return F.pixel_shuffle(self.four(F.interpolate(x, scale_factor=2.0, mode="bilinear")), 2)


def test_steps_are_counted_by_what_operators_do():
    called(Everything(), (torch.rand(1, 2, 6, 6),), {}, steps := Steps())
    once = [form for form in FORMS if form not in ("transposed_other", "other")]
    assert +steps.forms() == Counter(
        {form: 1 for form in once} | dict(transposed_other=3, transposed_1d=1, transposed_2d=5, strided=5, divisible=3)
    )


def test_what_the_backend_saves_is_counted_and_changes_nothing():
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1)), torch.rand(1, 2, 4, 4)
    saved, [output] = fold(model.requires_grad_(False), (x,), {})
    assert saved == 2 * 2 * (9 * 64 - 16 * 16)
    torch.testing.assert_close(output, model(x))
    assert fold(model.to("meta"), (x.to("meta"),), {})[0] == saved


def test_a_description_is_built_all_the_way_down():
    made = build(new("torch.nn.Sequential", new("torch.nn.Conv2d", 1, 2, kernel_size=3), new("torch.nn.ReLU")))
    assert [type(layer).__name__ for layer in made] == ["Conv2d", "ReLU"] and made[0].kernel_size == (3, 3)
    with pytest.raises(AttributeError):
        build(New("torch.nn.Nothing", (), {}))


def test_a_stand_in_is_imported_and_does_nothing(monkeypatch):
    monkeypatch.setattr("sys.meta_path", [*__import__("sys").meta_path])
    stand_in(("nowhere_to_be_found",))
    from nowhere_to_be_found.deep import Thing  # noqa: PLC0415

    assert isinstance(Thing(1).__class__, type) and Thing.CONSTANT
    assert not hasattr(__import__("nowhere_to_be_found"), "__all__")  # what Python asks a module for is not there
    assert issubclass(type("Own", (Thing,), {}), Thing)
    with pytest.raises(ImportError):
        __import__("neither_is_this")


def test_nothing_is_downloaded(monkeypatch):
    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, lambda *_: None)
    monkeypatch.setattr(socket, "create_connection", lambda *_: None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_CONFIG_DIR"):
        monkeypatch.setenv(name, "")
    offline()
    with socket.socket() as one:
        for call in (one.connect, one.connect_ex, socket.create_connection):
            with pytest.raises(OSError, match="downloads nothing"):
                call(("127.0.0.1", 9))
    with pytest.raises(OSError, match="downloads nothing"):
        socket.getaddrinfo("localhost", 9)
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"


def test_a_model_that_fails_has_no_row_and_is_named(monkeypatch, tmp_path, capsys):
    def small(name, path="torch.nn.Sequential"):
        layers = new("torch.nn.Upsample", scale_factor=2), new("torch.nn.Conv2d", 1, 1, 3, padding=1)
        return Model("torch", name, "GAN and other", new(path, *layers), ((1, 1, 4, 4),))

    monkeypatch.setattr(census, "MODELS", [small("good"), small("bad", "torch.nn.Missing"), small("last")])
    monkeypatch.setattr(census, "offline", lambda: None)
    path = tmp_path / "census.csv"
    assert census.main(["torch", "--here", "--path", str(path)]) == 1
    assert "torch, bad: AttributeError" in capsys.readouterr().err
    with open(path, encoding="utf-8", newline="") as file:
        first, last = csv.DictReader(file)
    assert (first["model"], last["model"], first["exact_by_rewrite"]) == ("good", "last", "1")
    assert (first["macs"], first["macs_rewritten"]) == (str(9 * 64), str(16 * 16))
    monkeypatch.setattr(census, "row", lambda model: pytest.fail(f"{model.name} is there already"))
    monkeypatch.setattr(census, "MODELS", [small("last"), small("good")])
    assert census.main(["torch", "--here", "--path", str(path)]) == 0
    monkeypatch.setattr(census, "row", lambda model: dict(package="torch", model=model.name, steps=5))
    assert census.main(["torch", "--here", "--path", str(path), "--name", "good"]) == 0
    assert [(found["model"], found["steps"]) for found in census.read(path).values()] == [("last", "1"), ("good", "5")]
    with pytest.raises(SystemExit):
        census.main(["nothing"])
