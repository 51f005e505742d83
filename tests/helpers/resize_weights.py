"""Resizing to Inception's 299 pixels as a matrix, by definition, in float64."""

import numpy as np

OUT = 299


def bilinear_weights(size):
    """[299, size]: half-pixel centres, no antialiasing, edge pixels repeated."""
    weights = np.zeros((OUT, size))
    for i in range(OUT):
        x = max((i + 0.5) * size / OUT - 0.5, 0)
        low = min(int(x), size - 1)
        weights[i, low] += 1 - (x - low)
        weights[i, min(low + 1, size - 1)] += x - low
    return weights


def bicubic_weights(size):
    """[299, size]: Keys' kernel with a = -0.5, widened when shrinking, renormalised at the edges."""
    scale = size / OUT
    width = max(scale, 1.0)

    def kernel(x):
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    weights = np.array([[kernel((j + 0.5 - (i + 0.5) * scale) / width) for j in range(size)] for i in range(OUT)])
    return weights / weights.sum(1, keepdims=True)
