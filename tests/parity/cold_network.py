"""Cold diffusion's ConvNeXt U-Net as plain functions of a checkpoint's tensors: an oracle that
tests of samplers can ask without a network of cmbench's own.
"""

import math

import torch
from torch import nn
from torch.nn import functional as nnf


class OfficialUnet(nn.Module):
    """Reads the EMA weights of an official `model.pt` (keys `module.denoise_fn.*`)."""

    def __init__(self, path):
        super().__init__()
        state = torch.load(path, weights_only=True, map_location="cpu")["ema"]
        marker = "denoise_fn."
        self.state = {k.split(marker)[1]: v for k, v in state.items() if marker in k}
        self.levels = 1 + max(int(k.split(".")[1]) for k in self.state if k.startswith("downs."))

    def forward(self, x, t, labels=None):
        time, kept = self.time(t), []
        for level in range(self.levels):
            x = self.stage(x, f"downs.{level}", time)
            kept.append(x)
            if f"downs.{level}.3.weight" in self.state:
                x = self.conv(x, f"downs.{level}.3", stride=2, padding=1)
        x = self.block(x, "mid_block1", time)
        x = self.block(self.attend(x, "mid_attn"), "mid_block2", time)
        for level in range(self.levels - 1):
            x = self.stage(torch.cat([x, kept.pop()], 1), f"ups.{level}", time)
            up = f"ups.{level}.3"
            weight, bias = self.state[f"{up}.weight"], self.state[f"{up}.bias"]
            x = nnf.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        return self.conv(self.block(x, "final_conv.0"), "final_conv.1")

    def stage(self, x, name, time):
        x = self.block(self.block(x, f"{name}.0", time), f"{name}.1", time)
        return self.attend(x, f"{name}.2")

    def time(self, t):
        half = self.state["time_mlp.1.weight"].shape[1] // 2
        rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        angles = t[:, None].float() * rates
        hidden = self.linear(torch.cat([angles.sin(), angles.cos()], 1), "time_mlp.1")
        return self.linear(nnf.gelu(hidden), "time_mlp.3")

    def block(self, x, name, time=None):
        h = self.conv(x, f"{name}.ds_conv", padding=3, groups=x.shape[1])
        if time is not None:
            h = h + self.linear(nnf.gelu(time), f"{name}.mlp.1")[:, :, None, None]
        if f"{name}.net.0.g" in self.state:
            h = self.norm(h, f"{name}.net.0")
        h = nnf.gelu(self.conv(h, f"{name}.net.1", padding=1))
        h = self.conv(h, f"{name}.net.3", padding=1)
        narrow = f"{name}.res_conv.weight" in self.state
        return h + (self.conv(x, f"{name}.res_conv") if narrow else x)

    def attend(self, x, name):
        b, _, height, width = x.shape
        qkv = self.conv(self.norm(x, f"{name}.fn.norm"), f"{name}.fn.fn.to_qkv")
        q, k, v = qkv.reshape(b, 3, 4, 32, height * width).unbind(1)
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        mixed = torch.einsum("bhde,bhdn->bhen", context, q * 32**-0.5)
        return self.conv(mixed.reshape(b, 128, height, width), f"{name}.fn.fn.to_out") + x

    def norm(self, x, name):
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        return centred * scale * self.state[f"{name}.g"] + self.state[f"{name}.b"]

    def conv(self, x, name, **options):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return nnf.conv2d(x, weight, bias, **options)

    def linear(self, x, name):
        return nnf.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])
