"""The networks that the book trains; the block that upsamples is their one choice.

Everything else is built first, so that two networks of one seed start from the same weights outside their blocks.
"""

from collections import OrderedDict

from torch import nn

from upconv.book.blocks import _int_of_at_least, upsampling_block

__all__ = ["Autoencoder"]


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

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If there is no block of that name, a number is below 1, or `channels` does not have 3 entries.

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

    def __init__(self, upsampling="nearest_conv_3x3", code_size=64, channels=(8, 16, 64)):
        super().__init__()
        code_size = _int_of_at_least(1, code_size=code_size)
        if not isinstance(channels, (tuple, list)) or len(channels) != 3:
            raise ValueError(f"channels={channels!r} must be 3 ints: the channels at 16 x 16, 8 x 8 and 4 x 4 pixels")
        c16, c8, c4 = (_int_of_at_least(1, **{f"channels[{i}]": number}) for i, number in enumerate(channels))
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
