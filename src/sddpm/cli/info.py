"""`sddpm info`: what a saved model is made of."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app


@app.command()
def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a saved model, or of a training run.")],
    layers: Annotated[bool, typer.Option("--layers", help="List every layer: shape, MACs, threshold.")] = False,
) -> None:
    """Parameters, multiply-accumulates per SNN time step, layers and firing thresholds of a model."""
    from torch import nn

    from sddpm.guidance.report import in_words
    from sddpm.models.macs import layer_macs
    from sddpm.models.thresholds import spiking_neurons
    from sddpm.neurons import SpikingNeuron
    from sddpm.neurons.kernels import describe
    from sddpm.pipelines import load_pipeline

    pipeline = load_pipeline(model)
    unet = pipeline.unet
    config = unet.config
    macs = layer_macs(unet)
    neurons = spiking_neurons(unet)
    kinds = Counter(type(m).__name__ for m in unet.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d))

    print(f"model        {type(unet).__name__} in {model}")
    size = config["sample_size"]
    print(f"images       {config['in_channels']} x {size} x {size}, patches of {config.get('patch_size', 1)}")
    if neurons:
        widths = ", ".join(str(config["base_channels"] * m) for m in config["channel_mult"])
        print(f"levels       {widths} channels, {config['num_res_blocks']} residual blocks each")
        reset = "soft reset" if config["v_reset"] is None else f"hard reset to {config['v_reset']:g}"
        print(f"neurons      {len(neurons)} layers of {config['neuron'].upper()}, T = {config['T']}, {reset}, "
              f"surrogate {config['surrogate']}")  # fmt: skip
        print(f"thresholds   {_thresholds([n.v_threshold for n in neurons.values()])}")
        if guidance := pipeline.config.get("threshold_guidance"):
            print(f"samples with {in_words(guidance)}")
        print(f"TSM          {'yes' if config['temporal_modulation'] else 'no'}")
        print(f"on this CPU  {describe()}")
    print(f"parameters   {sum(p.numel() for p in unet.parameters()):,}")
    print(f"MACs         {sum(macs.values()) / 1e9:.4g} G per SNN time step and image")
    print(f"layers       {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    print(f"scheduler    {type(pipeline.scheduler).__name__}, predicts {pipeline.scheduler.config.prediction_type}")
    if layers:
        print()
        for name, module in unet.named_modules():
            if isinstance(module, SpikingNeuron):
                print(f"  {name:36} {config['neuron'].upper():<20} v_threshold {module.v_threshold:g}")
            elif name in macs:
                shape = " x ".join(map(str, module.weight.shape))  # type: ignore[union-attr]
                print(f"  {name:36} {shape:<20} {macs[name] / 1e6:.4g} M MACs")


def _thresholds(values: list[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g} in all layers"
    return ", ".join(f"{value:g} in {count}" for value, count in sorted(Counter(values).items())) + " layers"
