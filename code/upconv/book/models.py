"""The networks that the book trains; the block that upsamples is their one choice.

Everything else is built first, so that two networks of one seed and the same channels start from the same weights
outside their blocks.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from upconv.book.blocks import upsampling_block
from upconv.book.common import checked_int

__all__ = ["ODD_SIZES", "Autoencoder", "SuperResolution", "UNet"]

ODD_SIZES = ("interpolate", "output_size", "pad", "pad_input_reflect", "pad_input_zeros", "refuse")


class Autoencoder(nn.Module):
    """A small convolutional autoencoder for images of 28 x 28 or 32 x 32, a few numbers to the image.

    `encoder` pads images of 28 x 28 to 32 x 32 with zeros and halves them three times; `decoder` doubles a 4 x 4 map
    three times, each time by one block of `upsampling`, and crops the padding away. The weights are drawn from
    PyTorch's global generator, those of the blocks last.

    Parameters
    ----------
    upsampling : str
        The name of the decoder's blocks, a key of `upconv.book.blocks.BLOCKS`.
    code_size : int
        The length of the code, at least 1.
    channels : tuple of 3 ints
        The channels at 16 x 16, 8 x 8 and 4 x 4 pixels, each at least 1. The decoder's last block keeps the first.
    decoder_channels : tuple of 3 ints, optional
        Those of the decoder, if they are to differ from the encoder's.
    image_channels : int
        Those of the images, at least 1.
    image_size : int
        Their height and width, 28 or 32.
    convolutions : int
        How many layers each doubling has, at least 1: the block, and so many 3x3 convolutions less one.

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If there is no block of that name, a number is out of its range, or a tuple of channels does not have 3 entries.

    Notes
    -----
    Strided convolutions down to a 4 x 4 map and a fully connected layer at the code are those of Radford, Metz and
    Chintala (2016), arXiv:1511.06434; `nn.ELU` in place of their batch normalization and `nn.ReLU` learns faster here.

    Examples
    --------
    >>> import torch
    >>> model = Autoencoder("conv_transpose_4x4")
    >>> images = torch.rand(5, 1, 28, 28)
    >>> model.encode(images).shape, model(images).shape
    (torch.Size([5, 64]), torch.Size([5, 1, 28, 28]))
    >>> model.decoder.up3
    Sequential(
      (0): ConvTranspose2d(8, 8, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    )
    """

    def __init__(
        self,
        upsampling="nearest_conv_3x3",
        code_size=64,
        channels=(8, 16, 64),
        decoder_channels=None,
        image_channels=1,
        image_size=28,
        convolutions=1,
    ):
        super().__init__()
        image_channels = checked_int("image_channels", image_channels, at_least=1)
        if checked_int("image_size", image_size, at_least=1) not in (28, 32):
            raise ValueError(f"image_size={image_size!r} must be 28 or 32")
        frame = (32 - image_size) // 2
        code_size = checked_int("code_size", code_size, at_least=1)
        where = "the channels at 16 x 16, 8 x 8 and 4 x 4 pixels"
        c16, c8, c4 = _channels(where, 3, channels=channels)
        self.code_size, self.image_shape = code_size, (image_channels, image_size, image_size)
        self.encoder = nn.Sequential(
            OrderedDict(
                pad=nn.ZeroPad2d(frame),
                conv1=nn.Conv2d(image_channels, c16, kernel_size=3, stride=2, padding=1),
                elu1=nn.ELU(),
                conv2=nn.Conv2d(c16, c8, kernel_size=3, stride=2, padding=1),
                elu2=nn.ELU(),
                conv3=nn.Conv2d(c8, c4, kernel_size=3, stride=2, padding=1),
                elu3=nn.ELU(),
                flatten=nn.Flatten(),
                linear=nn.Linear(c4 * 4 * 4, code_size),
            )
        )
        if decoder_channels is not None:
            c16, c8, c4 = _channels(where, 3, decoder_channels=decoder_channels)
        linear = nn.Linear(code_size, c4 * 4 * 4)
        conv = nn.Conv2d(c16, image_channels, kernel_size=3, padding=1)
        more = _more_convolutions(convolutions, c8, c16, c16)
        self.decoder = nn.Sequential(
            OrderedDict(
                linear=linear,
                unflatten=nn.Unflatten(1, (c4, 4, 4)),
                up1=upsampling_block(upsampling, c4, c8),
                elu1=nn.ELU(),
                **more[0],
                up2=upsampling_block(upsampling, c8, c16),
                elu2=nn.ELU(),
                **more[1],
                up3=upsampling_block(upsampling, c16, c16),
                elu3=nn.ELU(),
                **more[2],
                conv=conv,
                crop=nn.ZeroPad2d(-frame),
            )
        )

    def encode(self, images):
        """Map images to their codes.

        Parameters
        ----------
        images : torch.Tensor, shape (N, *image_shape)
            From 0 to 1, of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, code_size)

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images must have the shape (N, {expected}), not {tuple(images.shape)}")
        return self.encoder(images)

    def decode(self, codes):
        """Map codes to images.

        Parameters
        ----------
        codes : torch.Tensor, shape (N, code_size)
            Of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, *image_shape)
            Of any values: nothing holds them between 0 and 1.

        Raises
        ------
        ValueError
            If the codes have another shape.
        """
        if codes.dim() != 2 or codes.shape[1] != self.code_size:
            raise ValueError(f"codes must have the shape (N, {self.code_size}), not {tuple(codes.shape)}")
        return self.decoder(codes)

    def forward(self, images):
        """Map images to their reconstructions, both of shape (N, *image_shape): `decode(encode(images))`."""
        return self.decode(self.encode(images))


class SuperResolution(nn.Module):
    """A small convolutional network that enlarges images fourfold, in two doublings.

    Two 3x3 convolutions at the small size, two blocks of `upsampling`, a 3x3 convolution at the large size. The weights
    are drawn from PyTorch's global generator, those of the blocks last.

    Parameters
    ----------
    upsampling : str
        The name of the two blocks, a key of `upconv.book.blocks.BLOCKS`.
    channels : tuple of 3 ints
        The channels at the input's size, at twice and at four times that, each at least 1.
    image_channels : int
        Those of the images, at least 1.
    convolutions : int
        How many layers each doubling has, at least 1: the block, and so many 3x3 convolutions less one.

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If there is no block of that name, a number is below 1, or `channels` does not have 3 entries.

    Notes
    -----
    Convolutions at the small size and the enlargement at the end: Shi et al. (2016), arXiv:1609.05158. The network
    draws the large image itself, not a correction of an interpolated one, so nothing hides what its blocks do.

    Examples
    --------
    >>> import torch
    >>> model = SuperResolution("nearest_conv_3x3")
    >>> model(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 1, 32, 32])
    """

    def __init__(self, upsampling="nearest_conv_3x3", channels=(32, 16, 8), image_channels=1, convolutions=1):
        super().__init__()
        c1, c2, c4 = _channels("the channels at 1, 2 and 4 times the input's size", 3, channels=channels)
        self.image_channels = checked_int("image_channels", image_channels, at_least=1)
        conv1 = nn.Conv2d(image_channels, c1, kernel_size=3, padding=1)
        conv2 = nn.Conv2d(c1, c1, kernel_size=3, padding=1)
        conv3 = nn.Conv2d(c4, image_channels, kernel_size=3, padding=1)
        more = _more_convolutions(convolutions, c2, c4)
        self.layers = nn.Sequential(
            OrderedDict(
                conv1=conv1,
                elu1=nn.ELU(),
                conv2=conv2,
                elu2=nn.ELU(),
                up1=upsampling_block(upsampling, c1, c2),
                elu3=nn.ELU(),
                **more[0],
                up2=upsampling_block(upsampling, c2, c4),
                elu4=nn.ELU(),
                **more[1],
                conv3=conv3,
            )
        )

    def forward(self, images):
        """Enlarge images.

        Parameters
        ----------
        images : torch.Tensor, shape (N, image_channels, H, W)
            From 0 to 1, of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, image_channels, 4 * H, 4 * W)
            Of any values: nothing holds them between 0 and 1.

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1] != self.image_channels:
            raise ValueError(f"images must have the shape (N, {self.image_channels}, H, W), not {tuple(images.shape)}")
        return self.layers(images)


class UNet(nn.Module):
    """A small U-Net: an encoder that halves, a decoder that doubles, and what the one saw handed to the other.

    At every level two 3x3 convolutions, each with batch normalization and ReLU. The encoder halves by
    `nn.MaxPool2d(2)`, the decoder doubles by one block of `upsampling`, and there a skip connection concatenates the
    encoder's features of that size, before the block's. The weights are drawn from PyTorch's global generator, those of
    the blocks last.

    Parameters
    ----------
    upsampling : str
        The name of the decoder's blocks, a key of `upconv.book.blocks.BLOCKS`.
    in_channels, classes : int
        The channels of the images and of the output, at least 1.
    channels : tuple of ints
        The channels of the encoder's levels, from the images' size down: two levels or more, each at least 1.
    decoder_channels : tuple of ints, optional
        The channels of the decoder's levels, from the images' size down, one fewer than those of the encoder; by
        default the encoder's.
    skips : int, optional
        How many levels have a skip connection, counted from the smallest size; by default all.
    activation : bool
        Whether a ReLU stands after every block. Without it the block and the convolution that follows are one linear
        map.
    odd_sizes : str
        What is done where a level's size is odd, so that the block's output is a pixel smaller than what it is to be
        concatenated with. One of `ODD_SIZES`: "interpolate" that output bilinearly to the size; "output_size", ask the
        block's own `nn.ConvTranspose2d` or `nn.Upsample` for the size; "pad" the output with zeros, on the right and
        below; "pad_input_reflect" or "pad_input_zeros", pad the images instead, there too, so that no level is odd, and
        crop the result; or "refuse". It can be set anew at any time, as an attribute.

    Attributes
    ----------
    minimum_size : int
        The smallest H and W: 2 to the number of halvings.

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If there is no block or no remedy of that name, or a number, or the number of channels, is out of its range.

    Notes
    -----
    Ronneberger, Fischer and Brox (2015), arXiv:1505.04597, without their cropping: here convolutions are padded, so the
    output has the size of the images. They have no batch normalization; without it this small network at first calls
    everything background.

    Examples
    --------
    >>> model = UNet("conv_transpose_2x2", classes=4)
    >>> model(torch.rand(2, 1, 32, 32)).shape, model(torch.rand(2, 1, 33, 61)).shape
    (torch.Size([2, 4, 32, 32]), torch.Size([2, 4, 33, 61]))
    >>> model.minimum_size
    4
    """

    def __init__(
        self,
        upsampling="nearest_conv_3x3",
        in_channels=1,
        classes=2,
        channels=(8, 16, 32),
        decoder_channels=None,
        skips=None,
        activation=False,
        odd_sizes="pad_input_reflect",
    ):
        super().__init__()
        channels = _channels("two levels or more", None, channels=channels)
        depth = len(channels) - 1
        if decoder_channels is None:
            decoder_channels = channels[:-1]
        decoder_channels = _channels("one for each doubling", depth, decoder_channels=decoder_channels)
        skips = depth if skips is None else checked_int("skips", skips, at_least=0)
        if skips > depth:
            raise ValueError(f"skips={skips} must be at most {depth}, the number of doublings")
        in_channels = checked_int("in_channels", in_channels, at_least=1)
        self.channels, self.odd_sizes, self.minimum_size = channels, odd_sizes, 2**depth
        self._check_remedy()
        self.encoder = nn.Sequential(
            OrderedDict(
                (f"level{level}", _level(before, after, pool=level > 0))
                for level, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False))
            )
        )
        classes = checked_int("classes", classes, at_least=1)
        self.decoder = _UNetDecoder(upsampling, channels, decoder_channels, skips, classes, activation)

    def _check_remedy(self):
        if self.odd_sizes not in ODD_SIZES:
            raise ValueError(f"odd_sizes={self.odd_sizes!r} must be one of {', '.join(ODD_SIZES)}")

    def forward(self, images):
        """Give every pixel a number for each class.

        Parameters
        ----------
        images : torch.Tensor, shape (N, in_channels, H, W)
            From 0 to 1, of the model's dtype and on its device, H and W at least `minimum_size`.

        Returns
        -------
        torch.Tensor, shape (N, classes, H, W)
            Of any values: logarithms of probabilities, up to a constant.

        Raises
        ------
        ValueError
            If the images have another shape, or a level's size is odd and `odd_sizes` cannot help: "refuse", or
            "output_size" with `nn.PixelShuffle` or a 3x3 `nn.ConvTranspose2d`, which makes no such size. In train mode
            also if a single image leaves one pixel at the smallest level: batch normalization needs two values.
        """
        first = next(self.encoder.parameters())
        if images.dim() != 4 or images.shape[1] != first.shape[1]:
            raise ValueError(f"images must have the shape (N, {first.shape[1]}, H, W), not {tuple(images.shape)}")
        height, width = images.shape[2:]
        if min(height, width) < self.minimum_size:
            raise ValueError(
                f"images must have at least {self.minimum_size} x {self.minimum_size} pixels, since the network halves "
                f"{len(self.channels) - 1} times; these have {height} x {width}"
            )
        self._check_remedy()
        if self.odd_sizes.startswith("pad_input"):
            mode = "reflect" if self.odd_sizes == "pad_input_reflect" else "constant"
            images = F.pad(images, (0, -width % self.minimum_size, 0, -height % self.minimum_size), mode=mode)
        features = []
        for level in self.encoder:
            images = level(images)
            features.append(images)
        return self.decoder(features, self.odd_sizes)[..., :height, :width]


class _UNetDecoder(nn.Module):
    """The way up: for every doubling a block, the skip connection, and two convolutions; then the classes."""

    def __init__(self, upsampling, channels, decoder_channels, skips, classes, activation):
        super().__init__()
        depth = len(decoder_channels)
        handed = [channels[level] if level >= depth - skips else 0 for level in range(depth)]
        for level in reversed(range(depth)):
            into = handed[level] + decoder_channels[level]
            self.add_module(f"level{level}", _level(into, decoder_channels[level]))
        self.head = nn.Conv2d(decoder_channels[0], classes, kernel_size=1)
        below = (*decoder_channels[1:], channels[-1])
        for level in reversed(range(depth)):
            self.add_module(f"up{level}", upsampling_block(upsampling, below[level], decoder_channels[level]))
        self.depth, self.skips, self.activation = depth, skips, activation

    def forward(self, features, odd_sizes="refuse"):
        *features, x = features
        for level in reversed(range(self.depth)):
            skip = features[level]
            x = _doubled(self.get_submodule(f"up{level}"), x, skip.shape[2:], odd_sizes)
            if self.activation:
                x = F.relu(x)
            if level >= self.depth - self.skips:
                x = torch.cat([skip, x], dim=1)
            x = self.get_submodule(f"level{level}")(x)
        return self.head(x)


def _more_convolutions(convolutions, *channels):
    """For each doubling its further layers by name, 3x3 convolutions with ELU; none if it has the block alone."""
    further = range(1, checked_int("convolutions", convolutions, at_least=1))
    return [
        {f"more{level}_{i}": nn.Sequential(nn.Conv2d(c, c, kernel_size=3, padding=1), nn.ELU()) for i in further}
        for level, c in enumerate(channels, start=1)
    ]


def _level(before, after, *, pool=False):
    """Two 3x3 convolutions, each with batch normalization and ReLU, after a halving or not."""
    parts = OrderedDict(pool=nn.MaxPool2d(2)) if pool else OrderedDict()
    for number, channels in ((1, before), (2, after)):
        parts[f"conv{number}"] = nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False)
        parts[f"norm{number}"] = nn.BatchNorm2d(after)
        parts[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(parts)


def _doubled(block, x, size, odd_sizes):
    """Run a block, and see to it that its output has the size."""
    if odd_sizes == "output_size" and tuple(size) != (2 * x.shape[2], 2 * x.shape[3]):
        first, rest = block[0], block[1:]
        if isinstance(first, nn.ConvTranspose2d):
            return rest(first(x, output_size=size))
        if isinstance(first, nn.Upsample):
            return rest(F.interpolate(x, tuple(size), mode=first.mode, align_corners=first.align_corners))
        raise ValueError(
            f'odd_sizes="output_size" needs a block that begins with nn.ConvTranspose2d or nn.Upsample, not with '
            f'{type(first).__name__}; "interpolate" serves every block'
        )
    x = block(x)
    missing = size[0] - x.shape[2], size[1] - x.shape[3]
    if not any(missing):
        return x
    if odd_sizes == "interpolate":
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
    if odd_sizes == "pad":
        return F.pad(x, (0, missing[1], 0, missing[0]))
    raise ValueError(
        f"the block makes {x.shape[2]} x {x.shape[3]} pixels where the encoder had {size[0]} x {size[1]}: halving an "
        f"odd size drops a pixel, and doubling does not bring it back. Choose another odd_sizes than {odd_sizes!r}"
    )


def _channels(meaning, number, **argument):
    """Return the one argument as so many ints (None: two or more), or say what was wrong with it."""
    [(name, channels)] = argument.items()
    fits = isinstance(channels, (tuple, list)) and (len(channels) > 1 if number is None else len(channels) == number)
    if not fits:
        raise ValueError(f"{name}={channels!r} must be {number or 'at least 2'} ints: {meaning}")
    return tuple(checked_int(f"{name}[{i}]", number, at_least=1) for i, number in enumerate(channels))
