"""The networks that the book trains; the block that upsamples is their one choice.

Everything else is built first, so that two networks of one seed and the same channels start from the same weights
outside their blocks.
"""

from collections import OrderedDict

from torch import nn

from upconv.book.blocks import _int_of_at_least, upsampling_block

__all__ = ["Autoencoder", "SuperResolution"]


class Autoencoder(nn.Module):
    """A small convolutional autoencoder for images of 1 x 28 x 28, a few numbers to the image.

    `encoder` pads the images to 32 x 32 with zeros and halves them three times; `decoder` doubles a 4 x 4 map three
    times, each time by one block of `upsampling`, and crops the padding away. The weights are drawn from PyTorch's
    global generator, those of the blocks last.

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

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If there is no block of that name, a number is below 1, or a tuple of channels does not have 3 entries.

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

    def __init__(self, upsampling="nearest_conv_3x3", code_size=64, channels=(8, 16, 64), decoder_channels=None):
        super().__init__()
        code_size = _int_of_at_least(1, code_size=code_size)
        where = "the channels at 16 x 16, 8 x 8 and 4 x 4 pixels"
        c16, c8, c4 = _three_channels(where, channels=channels)
        self.code_size = code_size
        self.encoder = nn.Sequential(
            OrderedDict(
                pad=nn.ZeroPad2d(2),
                conv1=nn.Conv2d(1, c16, kernel_size=3, stride=2, padding=1),
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
            c16, c8, c4 = _three_channels(where, decoder_channels=decoder_channels)
        linear = nn.Linear(code_size, c4 * 4 * 4)
        conv = nn.Conv2d(c16, 1, kernel_size=3, padding=1)
        self.decoder = nn.Sequential(
            OrderedDict(
                linear=linear,
                unflatten=nn.Unflatten(1, (c4, 4, 4)),
                up1=upsampling_block(upsampling, c4, c8),
                elu1=nn.ELU(),
                up2=upsampling_block(upsampling, c8, c16),
                elu2=nn.ELU(),
                up3=upsampling_block(upsampling, c16, c16),
                elu3=nn.ELU(),
                conv=conv,
                crop=nn.ZeroPad2d(-2),
            )
        )

    def encode(self, images):
        """Map images to their codes.

        Parameters
        ----------
        images : torch.Tensor, shape (N, 1, 28, 28)
            From 0 to 1, of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, code_size)

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"images must have the shape (N, 1, 28, 28), not {tuple(images.shape)}")
        return self.encoder(images)

    def decode(self, codes):
        """Map codes to images.

        Parameters
        ----------
        codes : torch.Tensor, shape (N, code_size)
            Of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, 1, 28, 28)
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
        """Map images to their reconstructions, both of shape (N, 1, 28, 28): `decode(encode(images))`."""
        return self.decode(self.encode(images))


class SuperResolution(nn.Module):
    """A small convolutional network that enlarges grey images fourfold, in two doublings.

    Two 3x3 convolutions at the small size, two blocks of `upsampling`, a 3x3 convolution at the large size. The weights
    are drawn from PyTorch's global generator, those of the blocks last.

    Parameters
    ----------
    upsampling : str
        The name of the two blocks, a key of `upconv.book.blocks.BLOCKS`.
    channels : tuple of 3 ints
        The channels at the input's size, at twice and at four times that, each at least 1.

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

    def __init__(self, upsampling="nearest_conv_3x3", channels=(32, 16, 8)):
        super().__init__()
        c1, c2, c4 = _three_channels("the channels at 1, 2 and 4 times the input's size", channels=channels)
        conv1 = nn.Conv2d(1, c1, kernel_size=3, padding=1)
        conv2 = nn.Conv2d(c1, c1, kernel_size=3, padding=1)
        conv3 = nn.Conv2d(c4, 1, kernel_size=3, padding=1)
        self.layers = nn.Sequential(
            OrderedDict(
                conv1=conv1,
                elu1=nn.ELU(),
                conv2=conv2,
                elu2=nn.ELU(),
                up1=upsampling_block(upsampling, c1, c2),
                elu3=nn.ELU(),
                up2=upsampling_block(upsampling, c2, c4),
                elu4=nn.ELU(),
                conv3=conv3,
            )
        )

    def forward(self, images):
        """Enlarge images.

        Parameters
        ----------
        images : torch.Tensor, shape (N, 1, H, W)
            From 0 to 1, of the model's dtype and on its device.

        Returns
        -------
        torch.Tensor, shape (N, 1, 4 * H, 4 * W)
            Of any values: nothing holds them between 0 and 1.

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1] != 1:
            raise ValueError(f"images must have the shape (N, 1, H, W), not {tuple(images.shape)}")
        return self.layers(images)


def _three_channels(meaning, **argument):
    """Return the one argument as three ints, or say what was wrong with it."""
    [(name, channels)] = argument.items()
    if not isinstance(channels, (tuple, list)) or len(channels) != 3:
        raise ValueError(f"{name}={channels!r} must be 3 ints: {meaning}")
    return tuple(_int_of_at_least(1, **{f"{name}[{i}]": number}) for i, number in enumerate(channels))
