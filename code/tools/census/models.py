"""The models of the census: where each is, its settings, and the sizes of its inputs. A table, and no more.

How they were chosen. From each package the classes that it documents as models with upsampling; of ten tasks about
equally many, the architectures first that most others were made from. One configuration a class. What decides how a
model upsamples is as the class has it by default; where that does no upsampling, as in the package's documentation.
Channels and layers are made few. Models of MONAI have as many dimensions as their class by default; two, if it has
none. Left out is what needs a download, compiled code of its own, or over a minute.

`published` is for classes whose default settings are those of a published model: the sizes of an input of its size.
Settings without a default are then in `required`. Nothing there is from memory but the input's size.
"""

from functools import partial
from typing import NamedTuple

__all__ = ["MODELS", "STAND_INS", "Model", "New"]

LATENT, DIFFUSION, SUPER, MEDICAL = "latent", "diffusion U-Net", "super-resolution", "medical"
SEGMENTATION, DEPTH, DETECTION, POSE = "segmentation", "depth", "detection", "pose"
AUDIO, OTHER = "audio", "GAN and other"

# Packages that others import, for data and training, and that are not needed to build these models.
STAND_INS = {
    "denoising-diffusion-pytorch": ("torchvision", "pytorch_fid"),
    "segmentation-models-pytorch": ("torchvision",),
    "spandrel": ("torchvision",),
    "super-image": ("torchvision", "cv2", "h5py"),
    "timm": ("torchvision",),
    "ultralytics": ("torchvision", "cv2", "polars", "matplotlib"),
}


class New(NamedTuple):
    """What is to be made of a class or a function: where it is, and its arguments, which may be such things, too."""

    path: str
    arguments: tuple
    settings: dict


class Model(NamedTuple):
    """A row of the census."""

    package: str
    name: str
    task: str
    make: New
    inputs: object  # positional ones as a tuple, others as a dict: a tuple is the size of a random image
    part: str = ""  # the part of the model that is looked at, such as "decoder"
    published: tuple = ()  # the same model by default, and inputs of a published size


def new(path, *arguments, **settings):
    """Say what is to be made."""
    return New(path, arguments, settings)


def _model(package, module, task, name, inputs, *, part="", published=None, required=None, label=None, **settings):
    path = f"{module}.{name}"
    default = (new(path, **required or {}), published) if published else ()
    return Model(package, label or name, task, new(path, **settings), inputs, part, default)


def _transformer(task, stem, suffix, inputs, *, part="", published=None, label=None, **settings):
    """Give a row of transformers, whose models are made of a configuration."""
    path, config = f"transformers.{stem}{suffix}", f"transformers.{stem}Config"
    default = (new(path, new(config)), published) if published else ()
    return Model("transformers", label or stem, task, new(path, new(config, **settings)), inputs, part, default)


def _spandrel(task, module, name, inputs, **settings):
    return _model("spandrel", f"spandrel.architectures.{module}", task, name, inputs, **settings)


def _pytorchcv(task, module, name, inputs, published=None, **settings):
    """Give a row of pytorchcv, whose functions are named after published models."""
    default = {key: settings[key] for key in settings if key in ("pretrained_backbone", "return_heatmap")}
    row = _model("pytorchcv", f"pytorchcv.models.{module}", task, name, inputs, pretrained=False, **settings)
    return row._replace(published=(new(row.make.path, pretrained=False, **default), published) if published else ())


def _super_image(stem, **settings):
    config = new(f"super_image.{stem}Config", scale=4, **settings)
    return Model("super-image", stem, SUPER, new(f"super_image.{stem}Model", config), ((1, 3, 16, 16),))


def whole(*values):
    """Make an input of whole numbers."""
    return new("torch.tensor", list(values))


diffusers = partial(_model, "diffusers", "diffusers")
monai = partial(_model, "monai", "monai.networks.nets")
smp = partial(_model, "segmentation-models-pytorch", "segmentation_models_pytorch")
kornia = partial(_model, "kornia")
ddpm = partial(_model, "denoising-diffusion-pytorch", "denoising_diffusion_pytorch")

STEP = whole(7)  # of a diffusion
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def down(count):
    """Name the blocks of an encoder and a decoder of diffusers."""
    return dict(down_block_types=("DownEncoderBlock2D",) * count, up_block_types=("UpDecoderBlock2D",) * count)


LATENTS = [
    diffusers(
        *(LATENT, "AutoencoderKL", ((1, 4, 8, 8),)), part="decoder", block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4, layers_per_block=2, **down(4),
    ),
    diffusers(LATENT, "VQModel", ((1, 3, 16, 16),), block_out_channels=(8, 16), norm_num_groups=4, **down(2)),
    diffusers(
        *(LATENT, "AsymmetricAutoencoderKL", ((1, 3, 16, 16),)), norm_num_groups=4, down_block_out_channels=(8, 16),
        up_block_out_channels=(8, 16), **down(2),
    ),
    diffusers(
        *(LATENT, "AutoencoderTiny", ((1, 4, 8, 8),)), part="decoder", published=((1, 4, 64, 64),),
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ),
    diffusers(
        *(LATENT, "AutoencoderDC", ((1, 4, 4, 4),)), part="decoder", published=((1, 32, 16, 16),), latent_channels=4,
        attention_head_dim=4, encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8, 16),
        decoder_block_out_channels=(8, 8, 16), encoder_layers_per_block=(1,) * 3, decoder_layers_per_block=(1,) * 3,
        encoder_qkv_multiscales=((), (), (5,)), decoder_qkv_multiscales=((), (), (5,)),
    ),
    diffusers(
        *(LATENT, "ConsistencyDecoderVAE", ((1, 7, 16, 16), STEP)), part="decoder_unet",
        published=((1, 7, 256, 256), STEP), encoder_block_out_channels=(8,) * 4, encoder_norm_num_groups=4,
        decoder_block_out_channels=(8,) * 4, decoder_norm_num_groups=4, decoder_layers_per_block=1,
        encoder_layers_per_block=1,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLTemporalDecoder", ((1, 3, 16, 16),)), block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLWan", ((1, 3, 5, 16, 16),)), published=((1, 3, 1, 256, 256),), base_dim=4, z_dim=4,
        dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLQwenImage", ((1, 3, 1, 16, 16),)), published=((1, 3, 1, 256, 256),), base_dim=4,
        z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLCogVideoX", ((1, 4, 2, 4, 4),)), part="decoder", published=((1, 16, 2, 32, 32),),
        block_out_channels=(8,) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLHunyuanVideo", ((1, 4, 2, 4, 4),)), part="decoder", published=((1, 16, 2, 32, 32),),
        latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLHunyuanImage", ((1, 8, 4, 4),)), part="decoder", in_channels=3, out_channels=3,
        latent_channels=8, block_out_channels=(32, 32, 64), layers_per_block=1, spatial_compression_ratio=4,
        sample_size=32,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLLTXVideo", ((1, 8, 2, 2, 2),)), part="decoder", published=((1, 128, 2, 16, 16),),
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
    ),
    diffusers(
        *(LATENT, "AutoencoderKLAllegro", ((1, 4, 2, 4, 4),)), part="decoder", block_out_channels=(8,) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=4,
    ),
    _transformer(
        *(LATENT, "JanusVQVAE", "", ((1, 3, 16, 16),)), published=((1, 3, 512, 512),), embed_dim=8, num_embeddings=16,
        base_channels=32, channel_multiplier=[1, 1, 2], num_res_blocks=1, num_patches=4, latent_channels=8,
        projection_dim=8,
    ),
    monai(
        *(LATENT, "AutoencoderKL", ((1, 2, 8, 8),)), part="decoder", spatial_dims=2, channels=(4, 8, 8, 8),
        num_res_blocks=(1,) * 4, attention_levels=(False,) * 4, latent_channels=2, norm_num_groups=4,
        published=((1, 3, 32, 32),), required=dict(spatial_dims=2),
    ),
    monai(
        *(LATENT, "VQVAE", ((1, 4, 4, 4),)), part="decoder", spatial_dims=2, in_channels=1, out_channels=1,
        channels=(8, 8, 8), num_res_layers=1, num_res_channels=(8, 8, 8), num_embeddings=8, embedding_dim=4,
        published=((1, 64, 32, 32),), required=dict(spatial_dims=2, in_channels=1, out_channels=1),
    ),
    monai(
        *(LATENT, "VarAutoEncoder", ((1, 1, 16, 16),)), spatial_dims=2, in_shape=(1, 16, 16), out_channels=1,
        latent_size=4, channels=(4, 8), strides=(2, 2),
    ),
]  # fmt: skip

KARRAS = dict(image_size=32, dim=8, dim_max=16, attn_dim_head=4, num_downsamples=2, num_blocks_per_stage=1)
CASCADE = dict(
    sample=(1, 4, 16, 16), timestep_ratio=new("torch.tensor", [0.5]), clip_text_pooled=(1, 1, 8), clip_text=(1, 5, 8),
    clip_img=(1, 1, 8),
)  # fmt: skip

DIFFUSIONS = [
    diffusers(
        *(DIFFUSION, "UNet2DModel", ((1, 3, 16, 16), STEP)), published=((1, 3, 64, 64), STEP),
        block_out_channels=(8, 8, 16, 16), norm_num_groups=4, layers_per_block=1,
    ),
    diffusers(
        *(DIFFUSION, "UNet2DConditionModel", ((1, 4, 16, 16), STEP, (1, 5, 8))), block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4, layers_per_block=1, attention_head_dim=2, cross_attention_dim=8,
        published=((1, 4, 64, 64), STEP, (1, 77, 1280)),
    ),
    diffusers(
        *(DIFFUSION, "UNet3DConditionModel", ((1, 4, 2, 16, 16), STEP, (1, 5, 8))), block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4, layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        published=((1, 4, 4, 32, 32), STEP, (1, 77, 1024)),
    ),
    diffusers(
        *(DIFFUSION, "UNetSpatioTemporalConditionModel", ((1, 2, 8, 8, 8), STEP, (1, 1, 8), (1, 3))),
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24, layers_per_block=1, cross_attention_dim=8, num_attention_heads=(2, 4),
        num_frames=2, published=((1, 2, 8, 64, 64), STEP, (1, 1, 1024), (1, 3)),
    ),
    diffusers(
        *(DIFFUSION, "Kandinsky3UNet", ((1, 4, 16, 16), STEP, (1, 5, 8), new("torch.ones", 1, 5))),
        time_embedding_dim=16, groups=4, attention_head_dim=4, layers_per_block=2, block_out_channels=(8, 16, 32, 64),
        cross_attention_dim=8, encoder_hid_dim=8,
        published=((1, 4, 64, 64), STEP, (1, 77, 4096), new("torch.ones", 1, 77)),
    ),
    diffusers(
        *(DIFFUSION, "StableCascadeUNet", CASCADE), in_channels=4, out_channels=4, timestep_ratio_embedding_dim=8,
        patch_size=2, conditioning_dim=16, block_out_channels=(8, 16), num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1), clip_text_in_channels=8,
        clip_text_pooled_in_channels=8, clip_image_in_channels=8, switch_level=(True,),
    ),
    diffusers(
        *(DIFFUSION, "UNet1DModel", ((1, 2, 64), STEP)), in_channels=2, out_channels=2, extra_in_channels=64,
        norm_num_groups=4, block_out_channels=(32, 32, 32),
    ),
    monai(
        *(DIFFUSION, "DiffusionModelUNet", ((1, 1, 16, 16), STEP)), spatial_dims=2, in_channels=1, out_channels=1,
        channels=(8, 8, 8, 8), num_res_blocks=(1,) * 4, norm_num_groups=4, num_head_channels=4,
        published=((1, 1, 128, 128), STEP), required=dict(spatial_dims=2, in_channels=1, out_channels=1),
    ),
    ddpm(
        *(DIFFUSION, "Unet", ((1, 3, 32, 32), STEP)), dim=8, published=((1, 3, 128, 128), STEP),
        required=dict(dim=64),
    ),
    ddpm(DIFFUSION, "Unet1D", ((1, 3, 32), STEP), dim=8, channels=3),
    ddpm(DIFFUSION, "KarrasUnet", ((1, 4, 32, 32), new("torch.tensor", [0.3])), **KARRAS),
]  # fmt: skip

SMALL = dict(embed_dim=8, depths=(1,), num_heads=(2,), window_size=4, img_size=16)
SUPERS = [
    _spandrel(SUPER, "ESRGAN.__arch.RRDB", "RRDBNet", ((1, 3, 16, 16),), num_filters=8, num_blocks=1,
              published=((1, 3, 64, 64),)),
    _spandrel(SUPER, "SwinIR.__arch.SwinIR", "SwinIR", ((1, 3, 16, 16),), upscale=4, upsampler="pixelshuffle", **SMALL),
    _spandrel(SUPER, "HAT.__arch.HAT", "HAT", ((1, 3, 16, 16),), upscale=4, compress_ratio=2, squeeze_factor=2,
              **SMALL),
    _spandrel(SUPER, "ATD.__arch.atd_arch", "ATD", ((1, 3, 16, 16),), upscale=4, upsampler="nearest+conv",
              category_size=16, num_tokens=8, reducted_dim=4, **SMALL),
    _spandrel(SUPER, "DRCT.__arch.drct_arch", "DRCT", ((1, 3, 16, 16),), upscale=4, upsampler="pixelshuffle", gc=4,
              **SMALL),
    _spandrel(SUPER, "DAT.__arch.DAT", "DAT", ((1, 3, 16, 16),), img_size=16, embed_dim=32, depth=[1], num_heads=[2]),
    _spandrel(SUPER, "RCAN.__arch.rcan_arch", "RCAN", ((1, 3, 16, 16),), n_resgroups=1, n_resblocks=1, n_feats=8,
              reduction=4),
    _spandrel(SUPER, "Compact.__arch.SRVGG", "SRVGGNetCompact", ((1, 3, 16, 16),), num_feat=8, num_conv=2,
              published=((1, 3, 64, 64),)),
    _spandrel(SUPER, "SPAN.__arch.span", "SPAN", ((1, 3, 16, 16),), num_in_ch=3, num_out_ch=3, feature_channels=8,
              published=((1, 3, 64, 64),), required=dict(num_in_ch=3, num_out_ch=3)),
    _spandrel(SUPER, "PLKSR.__arch.RealPLKSR", "RealPLKSR", ((1, 3, 16, 16),), dim=16, n_blocks=1,
              published=((1, 3, 64, 64),)),
    _spandrel(SUPER, "OmniSR.__arch.OmniSR", "OmniSR", ((1, 3, 16, 16),), num_feat=16, window_size=4),
    _spandrel(SUPER, "SAFMN.__arch.safmn", "SAFMN", ((1, 3, 16, 16),), dim=16, n_blocks=2),
    _spandrel(SUPER, "RealCUGAN.__arch.upcunet_v3", "UpCunet2x", ((1, 3, 24, 24),), published=((1, 3, 64, 64),)),
    _spandrel(SUPER, "NAFNet.__arch.NAFNet_arch", "NAFNet", ((1, 3, 32, 32),), width=8, enc_blk_nums=[1, 1],
              dec_blk_nums=[1, 1]),
    _spandrel(SUPER, "DRUNet.__arch.network_unet", "DRUNet", ((1, 1, 32, 32),), nc=[4, 4, 8, 8], nb=1,
              published=((1, 1, 256, 256),)),
    _spandrel(SUPER, "SCUNet.__arch.SCUNet", "SCUNet", ((1, 3, 64, 64),), config=[1] * 7, input_resolution=64),
    _spandrel(SUPER, "Uformer.__arch.Uformer", "Uformer", ((1, 3, 128, 128),), img_size=128, embed_dim=8,
              depths=[1] * 9, num_heads=[1] * 9),
    _spandrel(SUPER, "FBCNN.__arch.FBCNN", "FBCNN", ((1, 3, 32, 32),), nc=[4, 4, 8, 512], nb=1),
    _transformer(SUPER, "Swin2SR", "ForImageSuperResolution", ((1, 3, 16, 16),), image_size=16, embed_dim=16,
                 depths=[1, 1], num_heads=[2, 2], window_size=4, published=((1, 3, 64, 64),)),
    _super_image("Edsr", n_resblocks=1, n_feats=8),
    _super_image("Msrn", n_blocks=1, n_feats=8),
    _super_image("Carn"),
    _super_image("Pan"),
]  # fmt: skip

FEATURES = (4, 4, 8, 8, 16, 4)
ONE, TWO = dict(in_channels=1, out_channels=2), dict(spatial_dims=2, in_channels=1, out_channels=2)
CUBE = (1, 1, 32, 32, 32)


def _nnunet(name, blocks):
    settings = dict(
        input_channels=1, n_stages=4, features_per_stage=(8, 8, 16, 16), conv_op=new("builtins.getattr", NN, "Conv2d"),
        kernel_sizes=3, strides=(1, 2, 2, 2), num_classes=2, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=new("builtins.getattr", NN, "InstanceNorm2d"), norm_op_kwargs=dict(affine=True),
        nonlin=new("builtins.getattr", NN, "LeakyReLU"), nonlin_kwargs=dict(inplace=True), **{blocks: 1},
    )  # fmt: skip
    module = "dynamic_network_architectures.architectures.unet"
    return _model("dynamic-network-architectures", module, MEDICAL, name, ((1, 1, 32, 32),), **settings)


NN = new("importlib.import_module", "torch.nn")

MEDICALS = [
    monai(MEDICAL, "UNet", ((1, 1, 32, 32),), channels=(4, 8, 16), strides=(2, 2), num_res_units=2, **TWO),
    monai(MEDICAL, "BasicUNet", (CUBE,), features=FEATURES, published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "BasicUNetPlusPlus", (CUBE,), features=FEATURES, published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "AttentionUnet", ((1, 1, 32, 32),), channels=(4, 8, 16), strides=(2, 2), **TWO),
    monai(MEDICAL, "DynUNet", ((1, 1, 32, 32),), kernel_size=[3] * 3, strides=[1, 2, 2], upsample_kernel_size=[2, 2],
          filters=[4, 8, 16], **TWO),
    monai(MEDICAL, "SegResNet", (CUBE,), blocks_down=(1, 1, 1), blocks_up=(1, 1), published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "SegResNetDS", (CUBE,), init_filters=8, blocks_down=(1, 1, 1), published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "VNet", ((1, 1, 16, 16, 16),), published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "UNETR", (CUBE,), img_size=(32,) * 3, feature_size=4, hidden_size=12, mlp_dim=16, num_heads=3,
          **ONE, published=((1, 1, 96, 96, 96),), required=dict(img_size=(96,) * 3, **ONE)),
    monai(MEDICAL, "SwinUNETR", ((1, 1, 64, 64, 64),), feature_size=12, depths=(1,) * 4, num_heads=(1, 1, 2, 2), **ONE),
    monai(MEDICAL, "MedNeXt", (CUBE,), init_filters=4, blocks_down=(1,) * 4, blocks_bottleneck=1, blocks_up=(1,) * 4,
          published=((1, 1, 96, 96, 96),)),
    monai(MEDICAL, "FlexibleUNet", ((1, 1, 64, 64),), backbone="resnet10", decoder_channels=(16, 8, 8, 4, 4), **ONE),
    monai(MEDICAL, "AHNet", (CUBE,), psp_block_num=0, out_channels=2),
    monai(MEDICAL, "VoxelMorphUNet", ((1, 2, 32, 32),), spatial_dims=2, in_channels=2, unet_out_channels=8,
          channels=(8,) * 4, final_conv_channels=(4, 4)),
    monai(MEDICAL, "RegUNet", ((1, 2, 32, 32),), spatial_dims=2, in_channels=2, num_channel_initial=4, depth=2),
    monai(MEDICAL, "ViTAutoEnc", (CUBE,), in_channels=1, img_size=(32,) * 3, patch_size=(16,) * 3, hidden_size=12,
          mlp_dim=16, num_layers=2, num_heads=3),
    _model("unet", "unet", MEDICAL, "UNet2D", ((1, 1, 64, 64),), num_encoding_blocks=3, out_channels_first_layer=8,
           padding=1),
    _nnunet("PlainConvUNet", "n_conv_per_stage"),
    _nnunet("ResidualEncoderUNet", "n_blocks_per_stage"),
]  # fmt: skip

SMP = dict(encoder_name="tu-resnet18", encoder_weights=None, classes=3)
FULL = dict(encoder_name="tu-resnet34", encoder_weights=None)
PICTURE, LARGE = ((1, 3, 64, 64),), ((1, 3, 512, 512),)


def swin():
    """Say what a small backbone of transformers is made of."""
    return new(
        "transformers.SwinConfig", image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2],
        window_size=2, out_features=STAGES,
    )  # fmt: skip


def backbone(name, **settings):
    """Say what a small vision transformer is made of."""
    return new(
        f"transformers.{name}Config", hidden_size=16, num_hidden_layers=4, num_attention_heads=2, out_features=STAGES,
        **settings,
    )  # fmt: skip


VIT = dict(
    image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16
)
FOUR = dict(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8)
QUERIES = dict(
    feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8, encoder_layers=1, decoder_layers=2,
    num_attention_heads=2, dim_feedforward=8, num_queries=4, num_labels=3, common_stride=4,
)  # fmt: skip
SAM = dict(
    vision_config=dict(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8, output_channels=8,
        mlp_dim=16, global_attn_indexes=[1], window_size=4, num_pos_feats=4,
    ),
    prompt_encoder_config=dict(hidden_size=8, image_size=64, patch_size=8, mask_input_channels=4),
    mask_decoder_config=dict(
        hidden_size=8, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=8
    ),
)  # fmt: skip
POINT = new("torch.tensor", [[[[20.0, 30.0]]]])

SEGMENTATIONS = [
    smp(SEGMENTATION, "Unet", PICTURE, decoder_channels=(16, 16, 8, 8, 4), published=LARGE, required=FULL, **SMP),
    smp(SEGMENTATION, "UnetPlusPlus", PICTURE, decoder_channels=(16, 16, 8, 8, 4), published=LARGE, required=FULL,
        **SMP),
    smp(SEGMENTATION, "MAnet", PICTURE, decoder_channels=(16, 16, 8, 8, 4), published=LARGE, required=FULL, **SMP),
    smp(SEGMENTATION, "Linknet", PICTURE, published=LARGE, required=FULL, **SMP),
    smp(SEGMENTATION, "FPN", PICTURE, decoder_pyramid_channels=32, decoder_segmentation_channels=32, published=LARGE,
        required=FULL, **SMP),
    smp(SEGMENTATION, "PSPNet", PICTURE, psp_out_channels=16, published=LARGE, required=FULL, **SMP),
    smp(SEGMENTATION, "DeepLabV3Plus", PICTURE, decoder_channels=16, published=LARGE, required=FULL, **SMP),
    smp(SEGMENTATION, "UPerNet", ((1, 3, 256, 256),), decoder_channels=16, published=LARGE, required=FULL, **SMP),
    _transformer(SEGMENTATION, "Segformer", "ForSemanticSegmentation", PICTURE, num_labels=3, published=LARGE, **FOUR),
    _transformer(SEGMENTATION, "UperNet", "ForSemanticSegmentation", PICTURE, backbone_config=swin(), hidden_size=8,
                 auxiliary_channels=4, auxiliary_in_channels=32, num_labels=3, pool_scales=[1, 2]),
    _transformer(SEGMENTATION, "Mask2Former", "ForUniversalSegmentation", PICTURE, backbone_config=swin(), **QUERIES),
    _transformer(SEGMENTATION, "MaskFormer", "ForInstanceSegmentation", PICTURE, backbone_config=swin(),
                 fpn_feature_size=32, mask_feature_size=32, num_labels=3, decoder_config=new(
                     "transformers.DetrConfig", d_model=8, encoder_layers=1, decoder_layers=1,
                     encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
                     num_queries=4)),
    _transformer(SEGMENTATION, "Eomt", "ForUniversalSegmentation", ((1, 3, 32, 32),), hidden_size=16,
                 num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8, num_queries=4, num_blocks=2,
                 num_labels=3),
    _transformer(SEGMENTATION, "Beit", "ForSemanticSegmentation", ((1, 3, 32, 32),), out_indices=[1, 2, 3, 4],
                 num_labels=3, pool_scales=[1, 2], **VIT),
    _transformer(SEGMENTATION, "MobileNetV2", "ForSemanticSegmentation", PICTURE, image_size=64, depth_multiplier=0.35,
                 num_labels=3),
    _transformer(SEGMENTATION, "Sam", "Model", dict(pixel_values=(1, 3, 64, 64), input_points=POINT), label="Sam",
                 **SAM, published=dict(pixel_values=(1, 3, 1024, 1024), input_points=POINT)),
    _transformer(SEGMENTATION, "VitMatte", "ForImageMatting", ((1, 4, 64, 64),), hidden_size=16,
                 convstream_hidden_sizes=[8, 8, 8], fusion_hidden_sizes=[16, 8, 8, 4], backbone_config=new(
                     "transformers.VitDetConfig", hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                     image_size=64, patch_size=16, num_channels=4, out_features=["stage2"], window_size=2,
                     window_block_indices=[0], use_relative_position_embeddings=True)),
    _pytorchcv(SEGMENTATION, "unet", "unet_cityscapes", PICTURE, num_classes=3, in_size=(64, 64),
               published=((1, 3, 1024, 2048),)),
    _pytorchcv(SEGMENTATION, "segnet", "segnet_cityscapes", PICTURE, num_classes=3, in_size=(64, 64)),
    _pytorchcv(SEGMENTATION, "enet", "enet_cityscapes", PICTURE, num_classes=3, in_size=(64, 64),
               published=((1, 3, 1024, 2048),)),
    _pytorchcv(SEGMENTATION, "erfnet", "erfnet_cityscapes", PICTURE, num_classes=3, in_size=(64, 64),
               published=((1, 3, 1024, 2048),)),
    _pytorchcv(SEGMENTATION, "bisenet", "bisenet_resnet18_celebamaskhq", PICTURE, num_classes=3, in_size=(64, 64),
               pretrained_backbone=False),
]  # fmt: skip

DINO = backbone("Dinov2", image_size=56, patch_size=14, reshape_hidden_states=False)
NECK = dict(reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, head_hidden_size=4)
TILE = new("transformers.Dinov2Config", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32,
           patch_size=8)  # fmt: skip

DEPTHS = [
    _transformer(DEPTH, "DPT", "ForDepthEstimation", ((1, 3, 32, 32),), neck_hidden_sizes=[8] * 4,
                 backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=8, published=((1, 3, 384, 384),), **VIT),
    _transformer(DEPTH, "DepthAnything", "ForDepthEstimation", ((1, 3, 56, 56),), backbone_config=DINO, patch_size=14,
                 **NECK),
    _transformer(DEPTH, "PromptDepthAnything", "ForDepthEstimation", ((1, 3, 56, 56), (1, 1, 12, 12)),
                 backbone_config=DINO, patch_size=14, **NECK),
    _transformer(DEPTH, "ZoeDepth", "ForDepthEstimation", ((1, 3, 32, 32),), reassemble_factors=[4, 2, 1, 0.5],
                 neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, bottleneck_features=8, num_relative_features=4,
                 bin_embedding_dim=8, num_attractors=[4, 2, 2, 1],
                 bin_configurations=[dict(n_bins=8, min_depth=0.001, max_depth=10.0, name="nyu")],
                 backbone_config=backbone("Beit", image_size=32, patch_size=8, intermediate_size=16,
                                          reshape_hidden_states=False, use_relative_position_bias=True,
                                          use_absolute_position_embeddings=False)),
    _transformer(DEPTH, "GLPN", "ForDepthEstimation", PICTURE, published=((1, 3, 480, 640),), **FOUR),
    _transformer(DEPTH, "DepthPro", "ForDepthEstimation", PICTURE, patch_size=32, fusion_hidden_size=8,
                 intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8], scaled_images_ratios=[0.5, 1.0],
                 scaled_images_overlap_ratios=[0.0, 0.2], scaled_images_feature_dims=[8, 8], image_model_config=TILE,
                 patch_model_config=TILE, fov_model_config=TILE, use_fov_model=True, num_fov_head_layers=0),
    smp(DEPTH, "DPT", PICTURE, encoder_name="tu-vit_tiny_patch16_224", encoder_weights=None, classes=1,
        decoder_fusion_channels=16, decoder_intermediate_channels=(16,) * 4, dynamic_img_size=True),
]  # fmt: skip

RESNET = new("transformers.RTDetrResNetConfig", embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4,
             out_features=STAGES[1:], layer_type="basic")  # fmt: skip
HGNET = new(
    "transformers.HGNetV2Config", stem_channels=[3, 8, 8], stage_in_channels=[8] * 4, stage_mid_channels=[4] * 4,
    stage_out_channels=[8] * 4, stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4,
    stage_downsample=[False, True, True, True], stage_light_block=[False] * 4, stage_kernel_size=[3] * 4,
    out_features=STAGES[1:], embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4,
)  # fmt: skip
DETR = dict(
    encoder_hidden_dim=16, encoder_layers=1, encoder_ffn_dim=8, encoder_attention_heads=2, d_model=16, num_queries=5,
    decoder_in_channels=[16] * 3, decoder_ffn_dim=8, decoder_layers=2, decoder_attention_heads=2, num_labels=3,
    hidden_expansion=0.5,
)  # fmt: skip
FIRST = dict(encoder_in_channels=[8, 16, 16], backbone_config=RESNET, anchor_image_size=None)


def _yolo(task, name, kind="DetectionModel"):
    path = f"ultralytics.nn.tasks.{kind}"
    return Model("ultralytics", name, task, new(path, f"{name}.yaml", verbose=False), PICTURE)


DETECTIONS = [
    _transformer(DETECTION, "RTDetr", "ForObjectDetection", PICTURE, published=((1, 3, 640, 640),), **FIRST, **DETR),
    _transformer(DETECTION, "RTDetrV2", "ForObjectDetection", PICTURE, **FIRST, **DETR),
    _transformer(DETECTION, "DFine", "ForObjectDetection", PICTURE, backbone_config=HGNET, depth_mult=0.34,
                 encoder_in_channels=[8, 8, 8], **DETR),
    _transformer(DETECTION, "LwDetr", "ForObjectDetection", PICTURE, projector_scale_factors=[2.0, 0.5], d_model=16,
                 decoder_layers=1, num_queries=5, group_detr=1, decoder_self_attention_heads=2,
                 decoder_cross_attention_heads=2, decoder_ffn_dim=8, num_labels=3, hidden_expansion=0.5,
                 backbone_config=new("transformers.LwDetrViTConfig", hidden_size=16, num_hidden_layers=2,
                                     num_attention_heads=2, image_size=64, patch_size=16, out_indices=[1, 2],
                                     window_block_indices=[0], num_windows=4)),
    _transformer(DETECTION, "PPOCRV5MobileDet", "ForObjectDetection", PICTURE, published=((1, 3, 640, 640),)),
    _yolo(DETECTION, "yolov3-tiny"),
    _yolo(DETECTION, "yolov5n"),
    _yolo(DETECTION, "yolov8n"),
    _yolo(DETECTION, "yolo11n"),
    _yolo(SEGMENTATION, "yolov8n-seg", "SegmentationModel"),
    _pytorchcv(DETECTION, "centernet", "centernet_resnet18_coco", PICTURE, in_size=(64, 64), pretrained_backbone=False,
               published=((1, 3, 512, 512),)),
]  # fmt: skip

POSED = new("transformers.VitPoseBackboneConfig", hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=(32, 32), patch_size=(8, 8), out_indices=[2], out_features=["stage2"])  # fmt: skip
HEAD = dict(upsample_out_channels=[8, 8], conv_out_channels=[8])

POSES = [
    _transformer(POSE, "VitPose", "ForPoseEstimation", ((1, 3, 32, 32),), backbone_config=POSED,
                 use_simple_decoder=False, num_labels=3),
    _transformer(POSE, "Sapiens2", "ForPoseEstimation", PICTURE, hidden_size=16, intermediate_size=16,
                 num_hidden_layers=2, num_attention_heads=2, num_key_value_attention_heads=2, image_size=(64, 64),
                 patch_size=16, num_labels=3, head_config=HEAD),
    _pytorchcv(POSE, "simplepose_coco", "simplepose_resnet18_coco", PICTURE, in_size=(64, 64), keypoints=3,
               pretrained_backbone=False, return_heatmap=True, published=((1, 3, 256, 192),)),
    _pytorchcv(POSE, "simpleposemobile_coco", "simplepose_mobile_resnet18_coco", PICTURE, in_size=(64, 64),
               keypoints=3, pretrained_backbone=False, return_heatmap=True, published=((1, 3, 256, 192),)),
    _pytorchcv(POSE, "alphapose_coco", "alphapose_fastseresnet101b_coco", PICTURE, in_size=(64, 64), keypoints=3,
               pretrained_backbone=False, return_heatmap=True, published=((1, 3, 256, 192),)),
    _pytorchcv(POSE, "ibppose_coco", "ibppose_coco", ((1, 3, 128, 128),), in_size=(128, 128)),
    _yolo(POSE, "yolov8n-pose", "PoseModel"),
]  # fmt: skip

VOCODER = dict(upsample_rates=[4, 2], upsample_kernel_sizes=[8, 4], upsample_initial_channel=16,
               resblock_kernel_sizes=[3, 5], resblock_dilation_sizes=[[1, 3], [1, 3]])  # fmt: skip
SOUND = ((1, 1, 64),)

AUDIOS = [
    diffusers(AUDIO, "AutoencoderOobleck", ((1, 2, 8),), part="decoder", encoder_hidden_size=4,
              downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=4, decoder_input_channels=2,
              audio_channels=1, published=((1, 64, 64),)),
    _transformer(AUDIO, "Dac", "Model", SOUND, encoder_hidden_size=4, downsampling_ratios=[2, 4], hidden_size=16,
                 decoder_hidden_size=16, upsampling_ratios=[4, 2], n_codebooks=2, codebook_size=8, codebook_dim=4,
                 published=((1, 1, 16384),)),
    _transformer(AUDIO, "Encodec", "Model", SOUND, num_filters=4, num_lstm_layers=1, hidden_size=8, codebook_dim=8,
                 codebook_size=8, upsampling_ratios=[4, 2], target_bandwidths=[24.0]),
    _transformer(AUDIO, "Mimi", "Model", ((1, 1, 2048),), num_filters=4, hidden_size=16, codebook_dim=8,
                 vector_quantization_hidden_dimension=8, codebook_size=8, num_quantizers=4, num_semantic_quantizers=1,
                 upsampling_ratios=[4, 2], num_hidden_layers=1, intermediate_size=16, num_attention_heads=2,
                 num_key_value_heads=2, head_dim=8, upsample_groups=16),
    _transformer(AUDIO, "SpeechT5HifiGan", "", ((1, 12, 8),), model_in_dim=8, published=((1, 64, 80),), **VOCODER),
    _transformer(AUDIO, "FastSpeech2ConformerHifiGan", "", ((1, 12, 8),), model_in_dim=8, published=((1, 64, 80),),
                 **VOCODER),
    _transformer(AUDIO, "Vits", "Model", (whole([1, 3, 4, 2, 7]),), vocab_size=20, hidden_size=16, num_hidden_layers=1,
                 num_attention_heads=2, ffn_dim=16, flow_size=16, spectrogram_bins=9, prior_encoder_num_flows=1,
                 posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1,
                 use_stochastic_duration_prediction=False, duration_predictor_filter_channels=8, **VOCODER),
    _transformer(AUDIO, "UnivNet", "Model", ((1, 10, 8), (1, 10, 8)), model_in_channels=8, model_hidden_channels=8,
                 num_mel_bins=8, resblock_kernel_sizes=[3, 3], resblock_stride_sizes=[2, 4],
                 resblock_dilation_sizes=[[1, 3], [1, 3]], kernel_predictor_num_blocks=1,
                 kernel_predictor_hidden_channels=8, kernel_predictor_conv_size=3),
]  # fmt: skip

STYLE = dict(out_size=32, num_style_feat=16, num_mlp=2, narrow=0.05)
OTHERS = [
    monai(OTHER, "Generator", ((2, 6),), latent_shape=(6,), start_shape=(4, 4, 4), channels=(8, 8, 8),
          strides=(2, 2, 1)),
    monai(OTHER, "SPADENet", ((1, 3, 32, 32), (1, 1, 32, 32)), spatial_dims=2, in_channels=1, out_channels=1,
          label_nc=3, input_shape=[32, 32], channels=[8, 8, 8], z_dim=4),
    _spandrel(OTHER, "GFPGAN.__arch.stylegan2_clean_arch", "StyleGAN2GeneratorClean",
              dict(styles=[(1, 16)], randomize_noise=False), **STYLE),
    _spandrel(OTHER, "GFPGAN.__arch.gfpganv1_clean_arch", "GFPGANv1Clean",
              dict(x=(1, 3, 64, 64), randomize_noise=False), out_size=64, num_style_feat=16, num_mlp=1, narrow=0.125),
    _spandrel(OTHER, "RestoreFormer.__arch.restoreformer_arch", "RestoreFormer", ((1, 3, 32, 32),), n_embed=16,
              embed_dim=32, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8,), resolution=32,
              z_channels=32, head_size=2, published=((1, 3, 512, 512),)),
    _spandrel(OTHER, "LaMa.__arch.LaMa", "LaMa", ((1, 3, 32, 32), (1, 1, 32, 32)), in_nc=4,
              published=((1, 3, 256, 256), (1, 1, 256, 256)), required=dict(in_nc=4)),
    kornia("kornia.feature", OTHER, "DISK", ((1, 3, 32, 32),), part="unet", published=((1, 3, 512, 512),)),
    kornia("kornia.models.dexined", OTHER, "DexiNed", PICTURE, pretrained=False, published=((1, 3, 512, 512),),
           required=dict(pretrained=False)),
    kornia("kornia.feature", OTHER, "DeFMO", ((1, 6, 64, 64),), pretrained=False),
    Model("timm", "hrnet_w18_small", OTHER, new("timm.create_model", "hrnet_w18_small", num_classes=3), PICTURE, "",
          (new("timm.create_model", "hrnet_w18_small"), ((1, 3, 224, 224),))),
    _transformer(OTHER, "EfficientLoFTR", "ForKeypointMatching", ((1, 2, 3, 64, 64),), stage_num_blocks=[1] * 4,
                 stage_stride=[2, 1, 2, 2], out_features=[8, 8, 16, 32], hidden_size=32, num_attention_layers=1,
                 num_attention_heads=8, fine_matching_slice_dim=4, fine_fusion_dims=[32, 16, 8]),
    _pytorchcv(OTHER, "prnet", "prnet", ((1, 3, 256, 256),), in_size=(256, 256)),
]  # fmt: skip

MODELS = [
    *(*LATENTS, *DIFFUSIONS, *SUPERS, *MEDICALS, *SEGMENTATIONS),
    *(*DEPTHS, *DETECTIONS, *POSES, *AUDIOS, *OTHERS),
]  # fmt: skip
