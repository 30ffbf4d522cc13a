"""Score SDE's NCSN++, DDPM++ and DDPM, plainly: one walk through `all_modules`."""

import math

import torch
from plain_parts import attend, conv, group_norm, linear, sines, taps
from torch.nn import functional as nnf


class ScoreNet:
    """Output without the division by sigma; x in [-1, 1], `label` as the authors' network has it.

    Args:
        p: Tensors.
        o: Options by the authors' names; absent ones are NCSN++'s without pyramids or filter.
    """

    def __init__(self, p, **o):
        self.p, self.o, self.place = p, o, 0
        self.nf, self.plus = o["nf"], o.get("family", "ncsnpp") == "ncsnpp"
        self.in_blocks = self.plus and o.get("resblock_type", "biggan") == "biggan"
        self.line = o.get("fir_kernel", (1, 3, 3, 1)) if o.get("fir") else (1, 1)
        rescales = self.plus and o.get("skip_rescale", True)
        self.scale = math.sqrt(0.5) if rescales else 1.0

    def __call__(self, x, label):
        self.place = 0
        o, levels, hs = self.o, len(self.o["ch_mult"]), []
        temb, pyramid = self.told(label), x
        hs.append(conv(self.p, self.next(), x, self.nf))
        for level, mult in enumerate(o["ch_mult"]):
            for _ in range(o["num_res_blocks"]):
                hs.append(self.attended(self.block(hs[-1], temb, self.nf * mult)))
            if level == levels - 1:
                break
            h = self.resampled(hs[-1], temb, up=False)
            if o.get("progressive_input", "none") == "input_skip":
                pyramid = taps(pyramid, self.line, up=False)
                h = conv(self.p, f"{self.next()}.Conv_0", pyramid, h.shape[1], 1) + h
            elif o.get("progressive_input", "none") == "residual":
                pyramid = self.scale * (self.fir_down(pyramid, h.shape[1]) + h)
                h = pyramid
            hs.append(h)
        h = self.block(hs[-1], temb, hs[-1].shape[1])
        h = self.block(self.attention(h), temb, h.shape[1])
        shown = None
        for level in reversed(range(levels)):
            for _ in range(o["num_res_blocks"] + 1):
                h = self.block(torch.cat([h, hs.pop()], 1), temb, self.nf * o["ch_mult"][level])
            h = self.attended(h)
            if o.get("progressive", "none") == "output_skip":
                own = self.end(h, x.shape[1])
                shown = own if shown is None else taps(shown, self.line, up=True) + own
            if level:
                h = self.resampled(h, temb, up=True)
        return self.end(h, x.shape[1]) if shown is None else shown

    def next(self):
        self.place += 1
        return f"all_modules.{self.place - 1}"

    def told(self, label):
        if self.o.get("embedding_type", "positional") == "fourier":
            rates = self.p.of(f"{self.next()}.W", self.nf)
            phase = label.log()[:, None] * rates[None] * 2 * math.pi
            waves = torch.cat([phase.sin(), phase.cos()], 1)
        else:
            waves = sines(label, self.nf, last=1, sine_first=True)
        h = linear(self.p, self.next(), waves, 4 * self.nf)
        return linear(self.p, self.next(), nnf.silu(h), 4 * self.nf)

    def norm(self, name, x):
        groups = min(x.shape[1] // 4, 32) if self.plus else 32
        return group_norm(self.p, name, x, groups, 1e-6)

    def nin(self, name, x, outputs):
        weight, bias = self.p.of(f"{name}.W", x.shape[1], outputs), self.p.of(f"{name}.b", outputs)
        return torch.einsum("bchw,cd->bdhw", x, weight) + bias[:, None, None]

    def block(self, x, temb, outputs, up=None):
        place, p = self.next(), self.p
        h = nnf.silu(self.norm(f"{place}.GroupNorm_0", x))
        if up is not None:
            h, x = taps(h, self.line, up=up), taps(x, self.line, up=up)
        h = conv(p, f"{place}.Conv_0", h, outputs)
        h = h + linear(p, f"{place}.Dense_0", nnf.silu(temb), outputs)[:, :, None, None]
        h = conv(p, f"{place}.Conv_1", nnf.silu(self.norm(f"{place}.GroupNorm_1", h)), outputs)
        if self.in_blocks and (x.shape[1] != outputs or up is not None):
            x = conv(p, f"{place}.Conv_2", x, outputs, 1)
        elif x.shape[1] != outputs:
            x = self.nin(f"{place}.NIN_0", x, outputs)
        return self.scale * (x + h)

    def resampled(self, x, temb, *, up):
        if self.in_blocks:
            return self.block(x, temb, x.shape[1], up)
        place, learned = self.next(), self.o.get("resamp_with_conv", True)
        if up:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return conv(self.p, f"{place}.Conv_0", x, x.shape[1]) if learned else x
        if not learned:
            return nnf.avg_pool2d(x, 2)
        x = nnf.pad(x, (0, 1, 0, 1))
        return conv(self.p, f"{place}.Conv_0", x, x.shape[1], stride=2, padding=0)

    def fir_down(self, x, outputs):
        """Convolved at full size, then filtered: margins of both are zeros of the input."""
        place, extra = self.next(), (len(self.line) - 1) // 2
        margin = 1 + extra
        weight = self.p.of(f"{place}.Conv2d_0.weight", outputs, x.shape[1], 3, 3)
        wide = nnf.conv2d(nnf.pad(x, (margin,) * 4), weight)
        line = torch.tensor(self.line, dtype=x.dtype)
        kernel = (torch.outer(line, line) / line.sum() ** 2).expand(outputs, 1, -1, -1)
        found = nnf.conv2d(wide, kernel, stride=2, groups=outputs)
        return found + self.p.of(f"{place}.Conv2d_0.bias", outputs)[:, None, None]

    def attended(self, x):
        return self.attention(x) if x.shape[-1] in self.o["attn_resolutions"] else x

    def attention(self, x):
        place, channels = self.next(), x.shape[1]
        h = self.norm(f"{place}.GroupNorm_0", x)
        rows = [self.nin(f"{place}.NIN_{i}", h, channels).flatten(2).transpose(1, 2)
                for i in range(3)]  # fmt: skip
        found = attend(*rows).transpose(1, 2).reshape(x.shape)
        return self.scale * (x + self.nin(f"{place}.NIN_3", found, channels))

    def end(self, h, outputs):
        h = nnf.silu(self.norm(self.next(), h))
        return conv(self.p, self.next(), h, outputs)
