"""Our tensor names and the reference's, layer by layer, for one configuration."""

from collections.abc import Iterator, Mapping

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _linear(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for leaf in ("weight", "bias"):
        yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def _norm(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for leaf in BATCH_NORM:
        yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def _conv(ours: str, theirs: str, modulated: bool) -> Iterator[tuple[str, str]]:
    if modulated:
        yield f"{ours}.p", f"{theirs}.tsmp"
    yield from _linear(ours, f"{theirs}.tsmconv" if modulated else theirs)


def _res_block(ours: str, theirs: str, modulated: bool, shortcut: bool) -> Iterator[tuple[str, str]]:
    yield from _linear(f"{ours}.time_projection.1", f"{theirs}.temb_proj.1")
    for i in (1, 2):
        yield from _conv(f"{ours}.conv{i}", f"{theirs}.conv{i}", modulated)
        yield from _norm(f"{ours}.norm{i}", f"{theirs}.bn{i}")
    if shortcut:
        yield from _conv(f"{ours}.shortcut", f"{theirs}.shortcut", modulated)


def _resample(ours: str, theirs: str, modulated: bool) -> Iterator[tuple[str, str]]:
    yield from _conv(f"{ours}.conv", f"{theirs}.conv", modulated)
    yield from _norm(f"{ours}.norm", f"{theirs}.bn")


def reference_names(config: Mapping) -> dict[str, str]:
    """{our tensor name: the reference's}, in the reference's order, for the configuration of a `SpikingUNet2DModel`."""
    mult, blocks, modulated = config["channel_mult"], config["num_res_blocks"], config["temporal_modulation"]
    names: dict[str, str] = {"time_embedding.table": "time_embedding.timembedding.0.weight"}
    names.update(_linear("time_embedding.linear1", "time_embedding.timembedding.1"))
    names.update(_linear("time_embedding.linear2", "time_embedding.timembedding.3"))
    for i, suffix in ((1, ""), (2, "_identity")):
        names.update(_conv(f"encoder.conv{i}", f"conv{suffix}", modulated))
        names.update(_norm(f"encoder.norm{i}", f"bn{suffix}"))

    # The reference numbers residual blocks and resampling layers of one direction together.
    n, current, skips = 0, 1, [1]
    for i, m in enumerate(mult):
        for j in range(blocks):
            names.update(_res_block(f"down.{i}.blocks.{j}", f"downblocks.{n}", modulated, current != m))
            n, current = n + 1, m
            skips.append(m)
        if i < len(mult) - 1:
            names.update(_resample(f"down.{i}.resample", f"downblocks.{n}", modulated))
            n += 1
            skips.append(m)
    for j in range(2):
        names.update(_res_block(f"middle.{j}", f"middleblocks.{j}", modulated, False))
    n = 0
    for i, m in enumerate(reversed(mult)):
        for j in range(blocks + 1):
            width = current + skips.pop()
            names.update(_res_block(f"up.{i}.blocks.{j}", f"upblocks.{n}", modulated, width != m))
            n, current = n + 1, m
        if i < len(mult) - 1:
            names.update(_resample(f"up.{i}.resample", f"upblocks.{n}", modulated))
            n += 1

    names.update(_norm("readout.norm", "tail_bn"))
    names.update(_conv("readout.conv", "tail_conv", modulated))
    names.update(_linear("readout.out_conv", "T_output_layer"))
    names.update(_norm("readout.out_norm", "last_bn"))
    return names


def reference_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape the reference stores a tensor in, from ours: a 3 x 3 x 1 Conv3d, and p as [T, 1, 1, 1, 1]."""
    if name == "T_output_layer.weight":
        return (*shape, 1)
    return (*shape, 1, 1, 1, 1) if name.endswith(".tsmp") else shape
