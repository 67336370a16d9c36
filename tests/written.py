"""Models as they are really written, for the tests of what rewrites, folds and audits them."""

import copy

import torch
from torch import nn

X = torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(0)).double()


class Model(nn.Module):
    """A model whose forward is a function of itself and x."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x, *others):
        return self.run(self, x, *others)


def conv(channels=8, outputs=4, size=3, **settings):
    return nn.Conv2d(channels, outputs, size, **{"padding": size // 2, **settings})


def up(scale=2, **settings):
    return nn.Upsample(scale_factor=scale, **settings)


def randomised(model):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double().eval()


def outputs(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def assert_same(model, other, *inputs):
    with torch.no_grad():
        expected = outputs(model(*copy.deepcopy(inputs)))
        found = outputs(other(*copy.deepcopy(inputs)))
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)
