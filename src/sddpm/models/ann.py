"""The ANN baseline of the spiking U-Net: the DDPM U-Net that SDDPM was derived from.

`model_index.json` of a saved pipeline names this module's class: do not move it.
"""

import math
from typing import Any

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput
from torch import Tensor, nn

from sddpm.models.checked import Checked
from sddpm.models.config import attention_levels, check_sample, check_shape, labels_for


class ANNUNet2DModel(Checked, ModelMixin, ConfigMixin):
    """diffusers' `UNet2DModel` (in `.unet`) with the widths, blocks and patches of a `SpikingUNet2DModel`.

    With the default configuration it is the ANN baseline of the SDDPM paper: GroupNorm, SiLU, Xavier weights,
    single-head attention in the middle only; 67,474,691 parameters and a fixed table of 128,000 numbers for the time.

    Args:
        sample_size, in_channels, out_channels: as of `SpikingUNet2DModel`.
        base_channels, channel_mult, num_res_blocks, patch_size: the same.
        num_train_timesteps, num_classes: the same.
        attention_resolutions: heights of feature maps (inside the network, that is after the patches). At the levels
            with these heights every block is followed by attention.
        middle_attention: attention between the two middle blocks.

    Raises:
        UserError: the configuration is invalid.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 128,
        channel_mult: tuple[int, ...] = (1, 2, 2, 4),
        num_res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (),
        middle_attention: bool = True,
        num_train_timesteps: int = 1000,
        patch_size: int = 1,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_shape(self.config)
        attention = attention_levels(self.config)
        self.unet = UNet2DModel(
            sample_size=sample_size // patch_size,
            in_channels=in_channels * patch_size**2,
            out_channels=out_channels * patch_size**2,
            block_out_channels=tuple(base_channels * mult for mult in channel_mult),
            layers_per_block=num_res_blocks,
            down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attention),
            up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
            add_attention=middle_attention,
            attention_head_dim=None,  # a single head
            norm_num_groups=math.gcd(32, base_channels),
            num_class_embeds=None if num_classes is None else num_classes + 1,  # the last row stands for "no class"
        )
        _initialize(self.unet)
        blocks: Any = self.unet.up_blocks
        for block in blocks:
            if block.upsamplers:
                block.upsamplers = nn.ModuleList(Upsample(layer.conv) for layer in block.upsamplers)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Predict the noise (or v) of x_t; arguments and result as in `SpikingUNet2DModel`."""
        check_sample(self.config, sample.shape)
        patch_size = self.config["patch_size"]
        labels = labels_for(self.config, class_labels, sample)
        out = self.unet(F.pixel_unshuffle(sample, patch_size), timestep, labels).sample
        out = F.pixel_shuffle(out, patch_size)
        return UNet2DOutput(sample=out) if return_dict else (out,)


class Upsample(nn.Module):
    """diffusers' `Upsample2D`: each pixel becomes 2 x 2, then comes the convolution.

    On CPUs torch.compile (2.13) loses the gradient of diffusers' interpolation in these blocks, so that everything
    before the layer would not learn.
    """

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, output_size: object = None) -> Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W]; output_size: unused, for sizes that are not even."""
        rows = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        return self.conv(rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2))


def _initialize(unet: UNet2DModel) -> None:
    """Xavier weights and zero biases. Blocks and attention start near the identity, the output starts near zero, and
    the class embedding starts at zero."""
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    last = [m.conv2 for m in unet.modules() if isinstance(m, ResnetBlock2D)]
    last += [m.to_out[0] for m in unet.modules() if isinstance(m, Attention)]  # type: ignore[index]
    for layer in (*last, unet.conv_out):
        nn.init.xavier_uniform_(layer.weight, gain=1e-5)  # type: ignore[arg-type]
    if isinstance(unet.class_embedding, nn.Embedding):
        nn.init.zeros_(unet.class_embedding.weight)
