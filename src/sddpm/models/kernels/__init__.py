"""Native kernels of a training step on the CPU: convolutions, and batch norm with the neurons behind it."""
