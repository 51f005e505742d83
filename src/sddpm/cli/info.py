"""`sddpm info`: describes a saved model."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL


@app.command()
def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    layers: Annotated[bool, typer.Option("--layers", help="List every layer: shape, MACs, threshold.")] = False,
    modulation: Annotated[
        Path | None,
        typer.Option(help="Plot the learned scales of TSM, by layer and time step, to this file.", metavar="FILE.png"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Print parameters, multiply-accumulates per SNN time step, layers and firing thresholds of a model."""
    from torch import nn

    from sddpm.diffusion.timesteps import is_distilled
    from sddpm.figures.modulation import modulation_figure
    from sddpm.files import FIGURES, Output, atomic_path, check_outputs
    from sddpm.guidance.report import in_words
    from sddpm.models.config import sample_shape
    from sddpm.models.macs import layer_macs
    from sddpm.models.modulation import modulation_scales
    from sddpm.models.thresholds import spiking_neurons
    from sddpm.neurons import SpikingNeuron
    from sddpm.neurons.kernels import describe
    from sddpm.pipelines import load_pipeline

    if modulation is not None:
        check_outputs([Output(modulation, "--modulation", FIGURES)], inputs=[model], force=force)
    pipeline = load_pipeline(model)
    unet = pipeline.unet
    config = unet.config
    macs = layer_macs(unet)
    neurons = spiking_neurons(unet)
    scales = modulation_scales(unet)
    if modulation is not None:
        with atomic_path(modulation) as temporary:
            modulation_figure({name: p.tolist() for name, p in scales.items()}).savefig(temporary)
    kinds = Counter(type(m).__name__ for m in unet.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d))

    print(f"model        {type(unet).__name__} in {model}")
    kind = "images " if pipeline.signal_range is None else "signals"
    print(f"{kind}      {' x '.join(map(str, sample_shape(config)))}, patches of {config.get('patch_size', 1)}")
    if pipeline.num_classes is not None:
        print(f"classes      {pipeline.num_classes}{': ' if pipeline.class_names else ''}"
              f"{', '.join(pipeline.class_names or [])}")  # fmt: skip
    if "channel_mult" in config:
        widths = ", ".join(str(config["base_channels"] * m) for m in config["channel_mult"])
        print(f"levels       {widths} channels, {config['num_res_blocks']} residual blocks each")
    if neurons:
        reset = "soft reset" if config["v_reset"] is None else f"hard reset to {config['v_reset']:g}"
        print(f"neurons      {len(neurons)} layers of {config['neuron'].upper()}, T = {config['T']}, {reset}, "
              f"surrogate {config['surrogate']}")  # fmt: skip
        print(f"thresholds   {_thresholds([n.v_threshold for n in neurons.values()])}")
        if guidance := pipeline.config.get("threshold_guidance"):
            print(f"samples with {in_words(guidance)}")
        print(f"wiring       {'pure: all convolutions but the first receive spikes' if config['pure'] else 'SDDPM'}")
        values = [value for p in scales.values() for value in p.tolist()]
        print(f"TSM          {f'yes, scales from {min(values):.3g} to {max(values):.3g}' if values else 'no'}")
        print(f"on this CPU  {describe()}")
    table = (
        "; sddpm energy counts differently, with the time embedding as a table of biases" if config.get("pure") else ""
    )
    print(f"parameters   {sum(p.numel() for p in unet.parameters()):,}{table}")
    print(f"MACs         {sum(macs.values()) / 1e9:.4g} G per image{' and SNN time step' if neurons else ''}")
    print(f"layers       {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    print(f"scheduler    {type(pipeline.scheduler).__name__}, predicts {pipeline.scheduler.config.prediction_type}")
    if is_distilled(pipeline.scheduler.config):
        print(f"distilled    {pipeline.num_inference_steps} evaluations, "
              f"at t = {', '.join(map(str, pipeline.scheduler.config.timesteps))}")  # fmt: skip
    if pipeline.x0_scale != 1:
        print(f"x0_scale     {pipeline.x0_scale:g}")
    for name, sampler in pipeline.samplers.items():
        default = ", the default" if name == pipeline.default_sampler else ""
        print(f"sampler      {name}{default}: {sampler}")
    if moments := pipeline.scheduler.config.get("moments"):
        print(f"moments      measured on {moments['samples']} images")
    if layers:
        print()
        for name, module in unet.named_modules():
            if isinstance(module, SpikingNeuron):
                print(f"  {name:36} {config['neuron'].upper():<20} v_threshold {module.v_threshold:g}")
            elif name in macs:
                weight = getattr(module, "weight", None)  # the product of attention has none
                shape = "product" if weight is None else " x ".join(map(str, weight.shape))
                print(f"  {name:36} {shape:<20} {macs[name] / 1e6:.4g} M MACs")


def _thresholds(values: list[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g} in all layers"
    return ", ".join(f"{value:g} in {count}" for value, count in sorted(Counter(values).items())) + " layers"
