"""Kernels of layers on the CPU in training: convolutions, batch norm; on GPUs: neurons with what is before them."""
