"""NCSN's and NCSNv2's score networks, plainly: from the papers and the authors' tensor names."""

import torch
from plain_parts import conv
from torch.nn import functional as nnf

ACTIVATIONS = {
    "elu": nnf.elu,
    "relu": nnf.relu,
    "lrelu": lambda x: nnf.leaky_relu(x, 0.2),
    "swish": lambda x: x * x.sigmoid(),
}


class RefineNet:
    """Score without the division by sigma; x in [0, 1], levels (B,) for NCSN alone."""

    def __init__(self, p, width, *, levels=0, activation="elu"):
        self.p, self.width, self.levels = p, width, levels
        self.act, self.index = ACTIVATIONS[activation], None

    def __call__(self, x, index, depth="base"):
        self.index = index
        w = self.width
        # Stage: name, width, dilation, whether its first block changes the width or the sides.
        stages = {
            "base": [("1", w, 1, 0), ("2", 2 * w, 1, 1), ("3", 2 * w, 2, 1), ("4", 2 * w, 4, 1)],
            "deeper": [("1", w, 1, 0), ("2", 2 * w, 1, 1), ("3", 2 * w, 1, 1), ("4", 4 * w, 2, 1),
                       ("5", 4 * w, 4, 1)],
            "deepest": [("1", w, 1, 0), ("2", 2 * w, 1, 1), ("3", 2 * w, 1, 1),
                        ("31", 2 * w, 1, 1), ("4", 4 * w, 2, 1), ("5", 4 * w, 4, 1)],
        }[depth]  # fmt: skip
        h = conv(self.p, "begin_conv", 2 * x - 1, w)
        kept = []
        for name, out, dilation, down in stages:
            h = self.residual(f"res{name}.0", h, out, dilation, down)
            h = self.residual(f"res{name}.1", h, out, dilation, False)
            kept.append(h)
        # Spelled out, since order is what can be wrong: which block takes which stage's result.
        if depth == "base":
            a, b, c, d = kept
            h = self.refine("refine1", [d], 2 * w)
            h = self.refine("refine2", [c, h], 2 * w)
            h = self.refine("refine3", [b, h], w)
            h = self.refine("refine4", [a, h], w, units=3)
        elif depth == "deeper":
            a, b, c, d, e = kept
            h = self.refine("refine1", [e], 4 * w)
            h = self.refine("refine2", [d, h], 2 * w)
            h = self.refine("refine3", [c, h], 2 * w)
            h = self.refine("refine4", [b, h], w)
            h = self.refine("refine5", [a, h], w, units=3)
        else:
            a, b, c, c1, d, e = kept
            h = self.refine("refine1", [e], 4 * w)
            h = self.refine("refine2", [d, h], 2 * w)
            h = self.refine("refine31", [c1, h], 2 * w)
            h = self.refine("refine3", [c, h], 2 * w)
            h = self.refine("refine4", [b, h], w)
            h = self.refine("refine5", [a, h], w, units=3)
        return conv(self.p, "end_conv", self.act(self.norm("normalizer", h)), x.shape[1])

    def norm(self, name, x):
        channels, p = x.shape[1], self.p
        if self.levels:
            rows = p.of(f"{name}.embed.weight", self.levels, 3 * channels)[self.index]
            gamma, alpha, beta = (part[:, :, None, None] for part in rows.chunk(3, 1))
        else:
            gamma, alpha, beta = (
                p.of(f"{name}.{part}", channels)[:, None, None]
                for part in ("gamma", "alpha", "beta")
            )
        mean = x.mean((2, 3), keepdim=True)
        normed = (x - mean) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        spread = (mean.var(1, keepdim=True) + 1e-5).sqrt()
        return gamma * (normed + alpha * (mean - mean.mean(1, keepdim=True)) / spread) + beta

    def residual(self, name, x, out, dilation, down):
        p, pools = self.p, down and dilation == 1
        inner = x.shape[1] if down else out
        h = conv(p, f"{name}.conv1", self.act(self.norm(f"{name}.normalize1", x)), inner,
                 dilation=dilation)  # fmt: skip
        h = self.act(self.norm(f"{name}.normalize2", h))
        if pools:
            h = quarter(conv(p, f"{name}.conv2.conv", h, out))
            return quarter(conv(p, f"{name}.shortcut.conv", x, out, 1)) + h
        h = conv(p, f"{name}.conv2", h, out, dilation=dilation)
        return (conv(p, f"{name}.shortcut", x, out, dilation=dilation) if down else x) + h

    def units(self, name, x, count):
        for i in range(count):
            h = x
            for j in (1, 2):
                if self.levels:
                    h = self.norm(f"{name}.{i + 1}_{j}_norm", h)
                h = conv(self.p, f"{name}.{i + 1}_{j}_conv", self.act(h), x.shape[1], bias=False)
            x = x + h
        return x

    def refine(self, name, xs, out, *, units=1):
        p, size = self.p, xs[0].shape[2:]
        hs = [self.units(f"{name}.adapt_convs.{i}", x, 2) for i, x in enumerate(xs)]
        h = hs[0]
        if len(hs) > 1:
            h = torch.zeros(())
            for i, part in enumerate(hs):
                told = self.norm(f"{name}.msf.norms.{i}", part) if self.levels else part
                told = conv(p, f"{name}.msf.convs.{i}", told, out)
                h = h + nnf.interpolate(told, size, mode="bilinear", align_corners=True)
        h = path = self.act(h)
        for i in range(2):
            if self.levels:
                path = self.norm(f"{name}.crp.norms.{i}", path)
                path = nnf.avg_pool2d(nnf.pad(path, (2, 2, 2, 2)), 5, 1)
            else:
                path = nnf.max_pool2d(path, 5, 1, 2)
            path = conv(p, f"{name}.crp.convs.{i}", path, out, bias=False)
            h = h + path
        return self.units(f"{name}.output_convs", h, units)


def quarter(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
