"""OpenAI's UNetModel, EDM's SongUNet and cold diffusion's networks, plainly."""

import math

import torch
from plain_parts import attend, conv, group_norm, linear, sines, taps
from torch.nn import functional as nnf


def openai_unet(p, x, t, labels=None, *, order, **o):
    """UNetModel of improved-diffusion (order `heads`) and consistency_models (order `three`)."""
    width, mults, blocks = o["model_channels"], o["channel_mult"], o["num_res_blocks"]
    emb = linear(p, "time_embed.0", sines(t, width, last=0, sine_first=False), 4 * width)
    emb = linear(p, "time_embed.2", nnf.silu(emb), 4 * width)
    if labels is not None:
        emb = emb + p.of("label_emb.weight", o["num_classes"], 4 * width)[labels]
    up_heads = o.get("num_heads_upsample", -1)
    heads = o.get("num_heads", 1)
    up_heads = heads if up_heads == -1 else up_heads

    def norm(name, h):
        return group_norm(p, name, h, 32, 1e-5)

    def resnet(name, h, outputs, up=None):
        skip, a = h, nnf.silu(norm(f"{name}.in_layers.0", h))
        if up is not None:
            a, skip = taps(a, (1, 1), up=up), taps(skip, (1, 1), up=up)
        a = conv(p, f"{name}.in_layers.2", a, outputs)
        shifts = o.get("use_scale_shift_norm", False)
        told = linear(p, f"{name}.emb_layers.1", nnf.silu(emb), outputs * (2 if shifts else 1))
        told = told[:, :, None, None]
        if shifts:
            scale, shift = told.chunk(2, 1)
            a = norm(f"{name}.out_layers.0", a) * (1 + scale) + shift
        else:
            a = norm(f"{name}.out_layers.0", a + told)
        a = conv(p, f"{name}.out_layers.3", nnf.silu(a), outputs)
        same = skip.shape[1] == outputs
        return a + (skip if same else conv(p, f"{name}.skip_connection", skip, outputs, 1))

    def attention(name, h, count):
        channels, per = h.shape[1], o.get("num_head_channels", -1)
        count = count if per == -1 else channels // per
        flat = norm(f"{name}.norm", h).flatten(2)
        # Kernels of length 1 in improved-diffusion, of 1x1 in consistency_models.
        size = (1,) if order == "heads" else (1, 1)
        weight = p.of(f"{name}.qkv.weight", 3 * channels, channels, *size)
        qkv = weight.flatten(1) @ flat + p.of(f"{name}.qkv.bias", 3 * channels)[:, None]
        axes = (count, 3, -1) if order == "heads" else (3, count, -1)
        qkv = qkv.reshape(len(h), *axes, flat.shape[-1])
        qkv = qkv.transpose(1, 2) if order == "heads" else qkv
        found = attend(*qkv.transpose(-1, -2).unbind(1)).transpose(-1, -2).reshape(flat.shape)
        weight = p.of(f"{name}.proj_out.weight", channels, channels, *size)
        found = weight.flatten(1) @ found + p.of(f"{name}.proj_out.bias", channels)[:, None]
        return h + found.reshape(h.shape)

    def resampled(name, child, h, up):
        if o.get("resblock_updown"):
            return resnet(f"{name}.{child}", h, h.shape[1], up)
        learned = o.get("conv_resample", True)
        if up:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return conv(p, f"{name}.{child}.conv", h, h.shape[1]) if learned else h
        if not learned:
            return nnf.avg_pool2d(h, 2)
        return conv(p, f"{name}.{child}.op", h, h.shape[1], stride=2, padding=1)

    h, number, factor = conv(p, "input_blocks.0.0", x, int(width * mults[0])), 0, 1
    hs = [h]
    for level, mult in enumerate(mults):
        for _ in range(blocks):
            number += 1
            h = resnet(f"input_blocks.{number}.0", h, int(width * mult))
            if factor in o["attention_resolutions"]:
                h = attention(f"input_blocks.{number}.1", h, heads)
            hs.append(h)
        if level < len(mults) - 1:
            number, factor = number + 1, 2 * factor
            h = resampled(f"input_blocks.{number}", 0, h, up=False)
            hs.append(h)
    h = resnet("middle_block.0", h, h.shape[1])
    h = resnet("middle_block.2", attention("middle_block.1", h, heads), h.shape[1])
    number = -1
    for level in reversed(range(len(mults))):
        for i in range(blocks + 1):
            number, child = number + 1, 1
            joined = torch.cat([h, hs.pop()], 1)
            h = resnet(f"output_blocks.{number}.0", joined, int(width * mults[level]))
            if factor in o["attention_resolutions"]:
                h, child = attention(f"output_blocks.{number}.1", h, up_heads), 2
            if level and i == blocks:
                h = resampled(f"output_blocks.{number}", child, h, up=True)
                factor //= 2
    return conv(p, "out.2", nnf.silu(norm("out.0", h)), o["out_channels"])


def song_unet(p, x, noise, **o):
    """EDM's SongUNet (names after `model.`), of any encoder, decoder, embedding and filter."""
    width, mults, blocks = o["model_channels"], o["channel_mult"], o["num_blocks"]
    line, side = o.get("resample_filter", [1, 1]), x.shape[-1]
    encoder, decoder = o.get("encoder_type", "standard"), o.get("decoder_type", "standard")
    channels = width * o.get("channel_mult_noise", 1)
    if o.get("embedding_type", "positional") == "fourier":
        phase = noise[:, None] * 2 * math.pi * p.of("map_noise.freqs", channels // 2)
        emb = torch.cat([phase.sin(), phase.cos()], 1)
    else:
        emb = sines(noise, channels, last=1, sine_first=True)
    emb = nnf.silu(linear(p, "map_layer0", emb, 4 * width))
    emb = nnf.silu(linear(p, "map_layer1", emb, 4 * width))

    def norm(name, h):
        return group_norm(p, name, h, min(32, h.shape[1] // 4), 1e-6)

    def block(name, h, outputs, *, up=None, attends=False):
        skip, a = h, nnf.silu(norm(f"{name}.norm0", h))
        if up is not None:
            a, skip = taps(a, line, up=up), taps(skip, line, up=up)
        a = conv(p, f"{name}.conv0", a, outputs)
        a = a + linear(p, f"{name}.affine", emb, outputs)[:, :, None, None]
        a = conv(p, f"{name}.conv1", nnf.silu(norm(f"{name}.norm1", a)), outputs)
        if skip.shape[1] != outputs or up is not None:
            skip = conv(p, f"{name}.skip", skip, outputs, 1)
        h = (a + skip) * math.sqrt(0.5)
        if not attends:
            return h
        qkv = conv(p, f"{name}.qkv", norm(f"{name}.norm2", h), 3 * outputs, 1).flatten(2)
        # One head: row 3 c + j is component j of channel c.
        query, key, value = (qkv[:, j::3].transpose(1, 2) for j in range(3))
        found = attend(query, key, value).transpose(1, 2).reshape(h.shape)
        return (h + conv(p, f"{name}.proj", found, outputs, 1)) * math.sqrt(0.5)

    def attends(now):
        return now in o["attn_resolutions"]

    h, aux, hs, now = None, x, [], side
    for level, mult in enumerate(mults):
        now, place = side >> level, f"enc.{side >> level}x{side >> level}"
        if level == 0:
            h = conv(p, f"{place}_conv", x, width)
        else:
            h = block(f"{place}_down", h, h.shape[1], up=False)
            if encoder == "skip":
                aux = taps(aux, line, up=False)
                h = h + conv(p, f"{place}_aux_skip", aux, h.shape[1], 1)
            elif encoder == "residual":
                aux = h + fused_down(p, f"{place}_aux_residual", aux, h.shape[1], line)
                h = aux = aux / math.sqrt(2)
        hs.append(h)
        for i in range(blocks):
            h = block(f"{place}_block{i}", h, width * mult, attends=attends(now))
            hs.append(h)
    shown = None
    for level in reversed(range(len(mults))):
        now, place = side >> level, f"dec.{side >> level}x{side >> level}"
        if level == len(mults) - 1:
            h = block(f"{place}_in0", h, h.shape[1], attends=True)
            h = block(f"{place}_in1", h, h.shape[1])
        else:
            h = block(f"{place}_up", h, h.shape[1], up=True)
        for i in range(blocks + 1):
            last = i == blocks and attends(now)
            h = block(f"{place}_block{i}", torch.cat([h, hs.pop()], 1), width * mults[level],
                      attends=last)  # fmt: skip
        if decoder == "skip" or level == 0:
            own = nnf.silu(norm(f"{place}_aux_norm", h))
            own = conv(p, f"{place}_aux_conv", own, x.shape[1])
            shown = own if shown is None else taps(shown, line, up=True) + own
    return shown


def fused_down(p, name, x, outputs, line):
    """Convolved at full size, then filtered, over zeros of the input for both."""
    margin = 1 + (len(line) - 1) // 2
    weight = p.of(f"{name}.weight", outputs, x.shape[1], 3, 3)
    wide = nnf.conv2d(nnf.pad(x, (margin,) * 4), weight)
    row = torch.tensor(line, dtype=x.dtype)
    kernel = (torch.outer(row, row) / row.sum() ** 2).expand(outputs, 1, -1, -1)
    return (
        nnf.conv2d(wide, kernel, stride=2, groups=outputs)
        + p.of(f"{name}.bias", outputs)[:, None, None]
    )


def cold_unet(p, x, time, *, dim, dim_mults, out_dim=None, residual=False):
    """Cold diffusion's Unet of ConvNeXt blocks; `time` None where it is not told."""
    told = None
    if time is not None:
        told = linear(p, "time_mlp.1", sines(time, dim, last=1, sine_first=True), 4 * dim)
        told = linear(p, "time_mlp.3", nnf.gelu(told), dim)

    def norm(name, h):
        g, b = (p.of(f"{name}.{part}", 1, h.shape[1], 1, 1) for part in ("g", "b"))
        mean = h.mean(1, keepdim=True)
        return (h - mean) / (((h - mean) ** 2).mean(1, keepdim=True) + 1e-5).sqrt() * g + b

    def block(name, h, outputs, *, normed=True, timed=True):
        a = conv(p, f"{name}.ds_conv", h, h.shape[1], 7, groups=h.shape[1])
        if told is not None and timed:
            a = a + linear(p, f"{name}.mlp.1", nnf.gelu(told), h.shape[1])[:, :, None, None]
        a = norm(f"{name}.net.0", a) if normed else a
        a = conv(p, f"{name}.net.3", nnf.gelu(conv(p, f"{name}.net.1", a, 2 * outputs)), outputs)
        return a + (h if h.shape[1] == outputs else conv(p, f"{name}.res_conv", h, outputs, 1))

    def attention(name, h):
        qkv = conv(p, f"{name}.fn.fn.to_qkv", norm(f"{name}.fn.norm", h), 384, 1, bias=False)
        q, k, v = (part.reshape(len(h), 4, 32, -1) for part in qkv.chunk(3, 1))
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        found = torch.einsum("bhde,bhdn->bhen", context, q * 32**-0.5)
        found = found.reshape(len(h), 128, *h.shape[2:])
        return h + conv(p, f"{name}.fn.fn.to_out", found, h.shape[1], 1)

    widths, hs, h = [dim * m for m in dim_mults], [], x
    for i, width in enumerate(widths):
        h = block(f"downs.{i}.0", h, width, normed=i > 0)
        h = attention(f"downs.{i}.2", block(f"downs.{i}.1", h, width))
        hs.append(h)
        if i < len(widths) - 1:
            h = conv(p, f"downs.{i}.3", h, width, 4, stride=2, padding=1)
    h = block("mid_block1", h, widths[-1])
    h = block("mid_block2", attention("mid_attn", h), widths[-1])
    for i, width in enumerate(reversed(widths[:-1])):
        h = block(f"ups.{i}.0", torch.cat([h, hs.pop()], 1), width)
        h = attention(f"ups.{i}.2", block(f"ups.{i}.1", h, width))
        weight = p.of(f"ups.{i}.3.weight", width, width, 4, 4)
        h = nnf.conv_transpose2d(h, weight, p.of(f"ups.{i}.3.bias", width), 2, 1)
    h = block("final_conv.0", h, dim, timed=False)
    h = conv(p, "final_conv.1", h, out_dim or x.shape[1], 1)
    return h + x if residual else h


def ddpm_unet(p, x, t, *, ch, ch_mult, num_res_blocks, attn_resolutions, learned=True):
    """DDPM's U-Net by the names of its PyTorch ports, cold diffusion's `Model` among them."""
    emb = linear(p, "temb.dense.0", sines(t, ch, last=1, sine_first=True), 4 * ch)
    emb = linear(p, "temb.dense.1", nnf.silu(emb), 4 * ch)

    def norm(name, h):
        return group_norm(p, name, h, 32, 1e-6)

    def block(name, h, outputs):
        a = conv(p, f"{name}.conv1", nnf.silu(norm(f"{name}.norm1", h)), outputs)
        a = a + linear(p, f"{name}.temb_proj", nnf.silu(emb), outputs)[:, :, None, None]
        a = conv(p, f"{name}.conv2", nnf.silu(norm(f"{name}.norm2", a)), outputs)
        same = h.shape[1] == outputs
        return a + (h if same else conv(p, f"{name}.nin_shortcut", h, outputs, 1))

    def attention(name, h):
        flat = norm(f"{name}.norm", h)
        rows = [conv(p, f"{name}.{part}", flat, h.shape[1], 1).flatten(2).transpose(1, 2)
                for part in "qkv"]  # fmt: skip
        found = attend(*rows).transpose(1, 2).reshape(h.shape)
        return h + conv(p, f"{name}.proj_out", found, h.shape[1], 1)

    hs = [conv(p, "conv_in", x, ch)]
    for level, mult in enumerate(ch_mult):
        for j in range(num_res_blocks):
            h = block(f"down.{level}.block.{j}", hs[-1], ch * mult)
            if h.shape[-1] in attn_resolutions:
                h = attention(f"down.{level}.attn.{j}", h)
            hs.append(h)
        if level < len(ch_mult) - 1:
            h = hs[-1]
            if learned:
                padded = nnf.pad(h, (0, 1, 0, 1))
                h = conv(p, f"down.{level}.downsample.conv", padded, h.shape[1], stride=2,
                         padding=0)  # fmt: skip
            else:
                h = nnf.avg_pool2d(h, 2)
            hs.append(h)
    h = block("mid.block_1", hs[-1], hs[-1].shape[1])
    h = block("mid.block_2", attention("mid.attn_1", h), h.shape[1])
    for level in reversed(range(len(ch_mult))):
        for j in range(num_res_blocks + 1):
            h = block(f"up.{level}.block.{j}", torch.cat([h, hs.pop()], 1), ch * ch_mult[level])
            if h.shape[-1] in attn_resolutions:
                h = attention(f"up.{level}.attn.{j}", h)
        if level:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = conv(p, f"up.{level}.upsample.conv", h, h.shape[1]) if learned else h
    return conv(p, "conv_out", nnf.silu(norm("norm_out", h)), x.shape[1])
