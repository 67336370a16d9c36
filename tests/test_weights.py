"""The census of trained weights: its readers, its measures, the way networks are fed, and the committed tables."""

import csv
import datetime
import math
import re

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import tools.weights.__main__ as command
from tools.weights import census
from tools.weights.networks import NcnnNetwork, onnx_transposed, read_param

PARAM = """7767517
12 13
Input            in0     0 1 in0 0=8 1=8 2=3
Convolution      conv    1 1 in0 a 0=4 1=3 3=2 4=1 5=1 6=108 9=2 -23310=1,1.000000e-01
Split            split   1 3 a a0 a1 a2
Pooling          mean    1 1 a0 b 0=1 4=1
InnerProduct     dense   1 1 b c 0=4 1=1 2=16 9=4
Scale            scale   2 1 a1 c d 0=-233
BinaryOp         mul     2 1 d c e 0=2
Deconvolution    up      1 1 e f 0=2 1=4 3=2 4=1 5=1 6=128
Crop             crop    1 1 a2 g -23309=2,1,1 -23310=2,-1,-1 -23311=2,-2,-1
Deconvolution    last    1 1 g h 0=2 1=5 3=3 4=2 6=200 9=1
Crop             like    2 1 f h i 0=1 1=1
Eltwise          sum     2 1 i h out0 0=1
"""


def stored(tensor, half):
    values = tensor.detach().numpy().astype("<f2" if half else "<f4").tobytes()
    return (0x01306B47 if half else 0).to_bytes(4, "little") + values + bytes(-len(values) % 4)


@pytest.fixture
def tiny(tmp_path):
    """Write a network of every kind of layer but one, with weights of 16 or 32 bits; give its files and the layers."""

    def write(half, behind=b""):
        conv, dense = nn.Conv2d(3, 4, 3, 2, padding=1), nn.Linear(4, 4)
        up, last = nn.ConvTranspose2d(4, 2, 4, 2, padding=1), nn.ConvTranspose2d(4, 2, 5, 3, padding=2, bias=False)
        for layer in (conv, dense, up, last):
            layer.weight.data = layer.weight.data.half().float()  # which both ways store exactly
        content = b""
        for layer in (conv, dense, up, last):
            weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            content += stored(weight.contiguous(), half)
            content += b"" if layer.bias is None else layer.bias.detach().numpy().tobytes()
        files = tmp_path / "tiny.param", tmp_path / "tiny.bin"
        files[0].write_text(PARAM)
        files[1].write_bytes(content + behind)
        return files, (conv, dense, up, last)

    return write


@pytest.mark.parametrize("half", [False, True])
def test_a_network_of_ncnn_is_read_and_run(tiny, half):
    files, (conv, dense, up, last) = tiny(half)
    network, x = NcnnNetwork(*files), torch.rand(2, 3, 8, 8)
    a = F.leaky_relu(conv(x), 0.1)
    c = dense(a.mean((2, 3))).sigmoid()[..., None, None]
    h = last(a[..., 1:-1, 1:-1]).relu()
    expected = up(a * c * c)[..., 1 : 1 + h.shape[2], 1 : 1 + h.shape[3]] + h
    torch.testing.assert_close(network(x), expected)
    found = network.transposed()
    assert list(found) == ["up", "last"]
    for layer, wanted in zip(found.values(), (up, last), strict=True):
        assert torch.equal(layer.weight, wanted.weight) and (layer.bias is None) is (wanted.bias is None)


def test_the_lines_of_a_param_file(tiny):
    (param, _), _ = tiny(True)
    layers = {layer.name: layer for layer in read_param(param)}
    assert layers["conv"].settings == {0: 4, 1: 3, 3: 2, 4: 1, 5: 1, 6: 108, 9: 2, 10: [0.1]}
    assert layers["crop"].settings == {9: [1, 1], 10: [-1, -1], 11: [-2, -1]}
    assert (layers["scale"].kind, layers["scale"].inputs, layers["scale"].outputs) == ("Scale", ["a1", "c"], ["d"])


def test_what_is_not_understood_is_refused(tiny):
    (param, bin), _ = tiny(False, behind=bytes(8))
    with pytest.raises(ValueError, match="8 bytes were not read"):
        NcnnNetwork(param, bin)
    bin.write_bytes(b"\1" + bin.read_bytes()[1:])
    with pytest.raises(ValueError, match="in the way 0x1, which is not read"):
        NcnnNetwork(param, bin)
    (param, bin), _ = tiny(False)
    param.write_text(PARAM.replace("6=128", "6=128 18=1"))
    with pytest.raises(ValueError, match=r"Deconvolution up has the settings \[18\]"):
        NcnnNetwork(param, bin)
    param.write_text("ncnn\n0 0\n")
    with pytest.raises(ValueError, match=r"is no \.param file"):
        read_param(param)


@pytest.mark.parametrize("constant", [False, True])
def test_the_transposed_convolutions_of_onnx(tmp_path, constant):
    weight = torch.rand(3, 2, 2, 2)
    stored = numpy_helper.from_array(weight.numpy(), "up.w")
    up = dict(strides=[2, 2], kernel_shape=[2, 2], pads=[0] * 4, dilations=[1, 1], group=1)
    for settings in (up, up | dict(pads=[1] * 4)):
        nodes = [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("ConvTranspose", ["a", "up.w"], ["y"], **settings),
        ]
        nodes = [helper.make_node("Constant", [], ["up.w"], value=stored)] * constant + nodes
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None]) for name in "xy")
        graph = helper.make_graph(nodes, "g", [x], [y], [stored] * (not constant))
        onnx.save(helper.make_model(graph), tmp_path / "tiny.onnx")
        if settings == up:
            [(name, layer)] = onnx_transposed(tmp_path / "tiny.onnx").items()
            assert name == "up.w" and torch.equal(layer.weight, weight) and layer.stride == (2, 2)
        else:
            with pytest.raises(ValueError, match="is not read here"):
                onnx_transposed(tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        *[("WAIFU2X_ANIME_UP2X", 7), ("WAIFU2X_PHOTO_UP2X_DENOISE1X", 7), ("WAIFU2X_CUNET_UP2X", 18)],
        *[("WAIFU2X_CUNET_UP1X_DENOISE3X", 28), ("REALCUGAN_PRO_UP3X", 14), ("REALCUGAN_SE_UP4X", 19)],
    ],
)
@pytest.mark.parametrize("size", [(64, 60), (61, 62)])
def test_pictures_are_framed_and_cut_as_the_package_does(name, frame, size):
    scale, seen = int(re.search(r"UP(\d)X", name)[1]), []

    class Network(nn.Module):  # which eats the frame, as unpadded convolutions do
        def forward(self, x):
            seen.append(x)
            return F.interpolate(x, scale_factor=scale)[..., scale * frame : -scale * frame, scale * frame :]

    x = 255 * torch.rand(1, 3, *size)
    y = census.Enlarger(Network(), name)(x)
    wanted = F.interpolate(x, scale_factor=scale)
    torch.testing.assert_close(y, 2 * wanted if "UP4X" in name else wanted)
    [framed] = seen
    assert framed.max() <= 1 and all((n - 2 * frame) % (4 if scale in (1, 3) else 2) == 0 for n in framed.shape[2:])
    assert torch.equal(framed[..., 0, frame], framed[..., 2 * frame if "REALCUGAN" in name else frame, frame])


def test_the_detector_sees_blue_first_from_minus_one_to_one():
    colors = torch.tensor([0.0, 127.5, 255.0]).reshape(1, 3, 1, 1).expand(1, 3, 32, 64)
    assert census.Detector(nn.Identity())(colors)[0, :, 5, 7].tolist() == [255, 0, -255]


def test_the_measures_of_a_layer_whose_kernel_is_known():
    layer = nn.ConvTranspose2d(1, 1, 2, 2, bias=False)
    layer.weight.data = torch.tensor([[[[1.0, 1.0], [1.0, 2.0]]]])
    found = census.layer_measures(layer)
    assert (found["in_channels"], found["kernel_size"], found["stride"], found["fresh"]) == (1, 2, 2, 0.75)
    assert found["dc_spread"] == pytest.approx(0.5)
    share = 1 - (5 / 4) ** 2 / (7 / 4)
    for name in ("off_dc_energy", "pair_distance", "equal_gains_distance"):
        assert found[name] == pytest.approx(share), name
    assert not hasattr(layer, "parametrizations") and layer.weight.dtype is torch.float32
    pair = nn.ConvTranspose2d(1, 1, 4, 2, bias=False)
    pair.weight.data = F.conv2d(torch.rand(1, 1, 3, 3), torch.ones(1, 1, 2, 2), padding=1)
    found = census.layer_measures(pair)
    assert max(found[name] for name in ("off_dc_energy", "pair_distance", "equal_gains_distance")) < 1e-12
    random = census.layer_measures(nn.ConvTranspose2d(64, 64, 5, 3))
    assert random["fresh"] == pytest.approx(8 / 9) and random["off_dc_energy"] == pytest.approx(8 / 9, abs=0.02)
    assert random["pair_distance"] == pytest.approx(1 - (3 / 5) ** 2, abs=0.02)  # of random kernels of 3 + 3 - 1 taps
    assert random["equal_gains_distance"] < random["pair_distance"]


@pytest.fixture
def toy(monkeypatch):
    """Put a network in the place of the census's: one layer that enlarges with a known pattern, wrong if asked for."""
    monkeypatch.setattr(census, "photograph", lambda size: torch.linspace(0, 255, 24).expand(1, 3, 24, 24))

    def put(wrong=0.0):
        layer = nn.ConvTranspose2d(3, 3, 2, 2, bias=False)
        kernel = torch.tensor([[1.0, 1.0], [1.0, 1.01]])
        layer.weight.data = torch.eye(3)[..., None, None] * kernel * (1 - wrong)
        network = nn.Sequential(nn.ZeroPad2d(-18), layer)
        run = census.Enlarger(network, "WAIFU2X_CUNET_UP2X")
        about = dict(package="p", version="1", licence="MIT", network="WAIFU2X_CUNET_UP2X", sha256="0")
        monkeypatch.setattr(command, "networks", lambda: [(dict(about), {"last": layer}, run, run)])

    return put


def test_a_run_writes_a_row_for_each_layer_and_each_network(toy, tmp_path, capsys):
    toy()
    assert command.main(["--folder", str(tmp_path)]) == 0
    [layer], [network] = (read(tmp_path / name) for name in ("weights.csv", "flat_responses.csv"))
    assert (tuple(layer), tuple(network)) == (command.LAYERS, command.RESPONSES)
    assert layer["layer"] == "last" and float(layer["dc_spread"]) == pytest.approx(0.01 / 1.01)
    assert (network["fed"], network["scale"], network["period"], network["border_found"]) == ("True", "2", "2", "True")
    assert network["difference"] == "0" and network["lines"] == "" and float(network["psnr"]) > 20
    deepest, pattern, median, worst = (float(network[name]) for name in ("deepest", "pattern", "median", "worst"))
    assert 0.1 < deepest < 0.75 * 2.55 + 1e-3 and pattern < deepest
    color = torch.tensor([int(level) for level in network["worst_color"].split()])
    assert worst == pytest.approx((color.square().float().mean() * 3e-4 / 16).sqrt().item(), rel=0.01)
    assert 0 < median < worst
    assert "pattern " in capsys.readouterr().out


def test_a_network_whose_picture_is_not_the_picture_has_no_response(toy, tmp_path, capsys):
    toy(wrong=0.9)
    assert command.main(["--folder", str(tmp_path)]) == 0
    [network] = read(tmp_path / "flat_responses.csv")
    assert (network["fed"], network["pattern"], network["period"]) == ("False", "", "")
    assert "not fed rightly" in capsys.readouterr().out
    (tmp_path / "flat_responses.csv").unlink()
    assert command.main(["--folder", str(tmp_path), "--name", "WAIFU"]) == 0
    assert not (tmp_path / "flat_responses.csv").exists()
    assert command.main(["--name", "OTHER"]) == 1


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tables():
    """The committed tables; what is a number in them is one."""

    def value(text):
        try:
            return float(text)
        except ValueError:
            return text

    names = dict(layers="weights.csv", networks="flat_responses.csv")
    found = {key: read(command.RESULTS / name) for key, name in names.items()}
    texts = ("version", "sha256", "date", "layer")
    return {
        key: [{name: text if name in texts else value(text) for name, text in row.items()} for row in rows]
        for key, rows in found.items()
    }


def test_the_committed_tables_say_where_every_number_is_from(tables):
    keys = dict(layers=("network", "layer"), networks=("network",))
    for key, columns in dict(layers=command.LAYERS, networks=command.RESPONSES).items():
        rows = tables[key]
        assert {tuple(row) for row in rows} == {columns}
        assert len({tuple(row[name] for name in keys[key]) for row in rows}) == len(rows)
        for row in rows:
            assert re.fullmatch("[0-9a-f]{64}", row["sha256"]) and row["licence"] in ("MIT", "Apache-2.0")
            datetime.date.fromisoformat(row["date"])
            assert not any(isinstance(value, float) and not math.isfinite(value) for value in row.values())
    about = {row["network"]: row["sha256"] for row in tables["networks"]}
    assert about == {row["network"]: row["sha256"] for row in tables["layers"]}
    pins = (command.Path(census.__file__).parent / "requirements.txt").read_text().splitlines()
    assert {f"{row['package']}=={row['version']}" for row in tables["networks"]} <= set(pins)


def test_the_committed_measures_of_layers_agree_with_each_other(tables):
    for row in tables["layers"]:
        shares = [row[name] for name in ("off_dc_energy", "pair_distance", "equal_gains_distance")]
        assert all(0 <= share <= 1 for share in shares) and 0 <= row["dc_spread"] <= 2
        assert row["fresh"] == pytest.approx(1 - 1 / row["stride"] ** 2)
        assert row["equal_gains_distance"] <= row["pair_distance"] + 1e-9
        if row["kernel_size"] == row["stride"]:  # where all three are the same
            assert shares == pytest.approx([shares[0]] * 3, abs=1e-9)


def test_the_committed_responses_are_of_networks_that_are_fed_rightly(tables):
    for row in tables["networks"]:
        measured = [row[name] for name in ("period", "pattern", "relative", "deepest", "border_found")]
        colors = [row[name] for name in ("median", "worst", "worst_color")]
        if row["fed"] != "True":
            assert measured == [""] * 5 and colors == [""] * 3
            continue
        enlarges = row["lines"] == ""
        assert row["difference"] < 0.05 and row["psnr"] > 20 if enlarges else row["lines"] == 7
        assert 0 < row["pattern"] <= row["deepest"] and 0 <= row["relative"] <= 1
        assert row["border_found"] in ("True", "False")
        if enlarges:
            one = row["network"].startswith(("WAIFU2X_ANIME", "WAIFU2X_PHOTO"))  # one level: the stride itself
            assert (2 if one else {1: 4, 2: 4, 3: 12, 4: 8}[row["scale"]]) % row["period"] == 0
            assert 0 < row["median"] < row["worst"] and re.fullmatch(r"\d+ \d+ \d+", row["worst_color"])
        else:
            assert 32 % row["period"] == 0 and colors == [""] * 3
