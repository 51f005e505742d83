"""The Inception-v3 of FID written a second time, straight from the names of its weights, to compare with."""

import torch
import torch.nn.functional as F


def layer(w, name, x, stride=1, pad=(0, 0)):
    x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=pad)
    gain = w[f"{name}.bn.weight"] / torch.sqrt(w[f"{name}.bn.running_var"] + 0.001)
    shift = w[f"{name}.bn.bias"] - w[f"{name}.bn.running_mean"] * gain
    return (x * gain[:, None, None] + shift[:, None, None]).clamp(min=0)


def mean_of_neighbours(x):
    ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    total = F.conv2d(x, ones, padding=1, groups=x.shape[1])
    return total / F.conv2d(torch.ones_like(x), ones, padding=1, groups=x.shape[1])


def max_of_neighbours(x):
    """The largest of each 3x3 neighbourhood, as the maximum of nine shifted maps."""
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    height, width = x.shape[2:]
    return torch.stack([padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]).amax(0)


def block_a(w, n, x):
    b5 = layer(w, f"{n}.branch5x5_2", layer(w, f"{n}.branch5x5_1", x), pad=(2, 2))
    b3 = layer(w, f"{n}.branch3x3dbl_2", layer(w, f"{n}.branch3x3dbl_1", x), pad=(1, 1))
    b3 = layer(w, f"{n}.branch3x3dbl_3", b3, pad=(1, 1))
    bp = layer(w, f"{n}.branch_pool", mean_of_neighbours(x))
    return torch.cat([layer(w, f"{n}.branch1x1", x), b5, b3, bp], 1)


def block_c(w, n, x):
    b7 = layer(w, f"{n}.branch7x7_2", layer(w, f"{n}.branch7x7_1", x), pad=(0, 3))
    b7 = layer(w, f"{n}.branch7x7_3", b7, pad=(3, 0))
    d = layer(w, f"{n}.branch7x7dbl_1", x)
    for i, pad in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
        d = layer(w, f"{n}.branch7x7dbl_{i}", d, pad=pad)
    bp = layer(w, f"{n}.branch_pool", mean_of_neighbours(x))
    return torch.cat([layer(w, f"{n}.branch1x1", x), b7, d, bp], 1)


def block_e(w, n, x, pooled):
    b3 = layer(w, f"{n}.branch3x3_1", x)
    b3 = [layer(w, f"{n}.branch3x3_2a", b3, pad=(0, 1)), layer(w, f"{n}.branch3x3_2b", b3, pad=(1, 0))]
    d = layer(w, f"{n}.branch3x3dbl_2", layer(w, f"{n}.branch3x3dbl_1", x), pad=(1, 1))
    d = [layer(w, f"{n}.branch3x3dbl_3a", d, pad=(0, 1)), layer(w, f"{n}.branch3x3dbl_3b", d, pad=(1, 0))]
    return torch.cat([layer(w, f"{n}.branch1x1", x), *b3, *d, layer(w, f"{n}.branch_pool", pooled)], 1)


def features(w, x):
    """All features of images [B, 3, 299, 299] that the weights `w` reach."""
    found = {}
    x = layer(w, "Conv2d_1a_3x3", x, stride=2)
    x = layer(w, "Conv2d_2a_3x3", x)
    x = F.max_pool2d(layer(w, "Conv2d_2b_3x3", x, pad=(1, 1)), 3, 2)
    found["64"] = x.mean((2, 3))
    if "Conv2d_3b_1x1.conv.weight" not in w:
        return found
    x = F.max_pool2d(layer(w, "Conv2d_4a_3x3", layer(w, "Conv2d_3b_1x1", x)), 3, 2)
    found["192"] = x.mean((2, 3))
    for n in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = block_a(w, n, x)
    d = layer(w, "Mixed_6a.branch3x3dbl_2", layer(w, "Mixed_6a.branch3x3dbl_1", x), pad=(1, 1))
    d = layer(w, "Mixed_6a.branch3x3dbl_3", d, stride=2)
    x = torch.cat([layer(w, "Mixed_6a.branch3x3", x, stride=2), d, F.max_pool2d(x, 3, 2)], 1)
    x = block_c(w, "Mixed_6c", block_c(w, "Mixed_6b", x))
    found["spatial"] = torch.einsum("bchw->bhwc", layer(w, "Mixed_6d.branch1x1", x)[:, :7]).reshape(len(x), -1)
    x = block_c(w, "Mixed_6e", block_c(w, "Mixed_6d", x))
    found["768"] = x.mean((2, 3))
    if "Mixed_7a.branch3x3_1.conv.weight" not in w:
        return found
    b3 = layer(w, "Mixed_7a.branch3x3_2", layer(w, "Mixed_7a.branch3x3_1", x), stride=2)
    b7 = layer(w, "Mixed_7a.branch7x7x3_2", layer(w, "Mixed_7a.branch7x7x3_1", x), pad=(0, 3))
    b7 = layer(w, "Mixed_7a.branch7x7x3_4", layer(w, "Mixed_7a.branch7x7x3_3", b7, pad=(3, 0)), stride=2)
    x = torch.cat([b3, b7, F.max_pool2d(x, 3, 2)], 1)
    x = block_e(w, "Mixed_7b", x, mean_of_neighbours(x))
    x = block_e(w, "Mixed_7c", x, max_of_neighbours(x))
    found["2048"] = x.mean((2, 3))
    found["logits"] = found["2048"] @ w["fc.weight"].T
    return found
