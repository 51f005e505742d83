"""Kernels of layers on the CPU in training: convolutions, batch norm; on GPUs: neurons fused with the layer before
them."""
