// The call of the convolutions over real values.

#pragma once

#include "platform.h"

// A convolution. Mirrored by `ConvCall` in dense.py. All taps of the filter see one input, or a 1x1 filter several.
struct ConvCall {
    int32_t threads, inputs;
    int64_t steps, images, H, W, size, out_channels;  // size: of the filter, size x size; images: per time step
    int64_t channels[2];
    int64_t scale_stride, bias_stride;  // from one time step to the next, or 0
    const float *x[2];                  // [steps, images, H, W, channels]
    const float *weight;                // [panels][taps and channels][PANEL], zero-padded
    const float *scale, *bias;          // [1 or steps], [1 or steps, panels * PANEL]
    const float *zeros;                 // [channels]
    float *out;                         // [steps, images, H, W, out_channels]
};
