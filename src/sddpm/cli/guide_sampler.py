"""`sddpm guide --search sampler`: searches the best sampler within a number of evaluations."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sddpm.guidance.sampler_settings import SamplerSettings

DEFAULT_NAME = "fast"


def search_sampler(
    ctx: typer.Context, settings: "SamplerSettings", model: Path, name: str, store: bool | None, out: Path | None
) -> None:
    """Search, print table and verdict, write the JSON, and save the choice under a name."""
    import shlex
    import sys

    from sddpm.cli.arguments import in_options
    from sddpm.files import atomic_path
    from sddpm.guidance import store_sampler
    from sddpm.guidance.sampler_report import kept_sampler, sampler_json, sampler_table, sampler_verdict
    from sddpm.guidance.sampler_run import guide_sampler
    from sddpm.pipelines.samplers import check_sampler_name

    check_sampler_name(name)
    report = guide_sampler(settings, say=lambda line: typer.echo(line, err=True))
    if report is None:
        return
    keep = report.beats_own if store is None else store
    if out is not None:
        with atomic_path(out) as temporary:
            command = shlex.join(["sddpm", *sys.argv[1:]])
            temporary.write_text(sampler_json(report, command, name if keep else None), encoding="utf-8")
    typer.echo(sampler_table(report))
    for line in sampler_verdict(report):
        typer.echo(in_options(ctx, line))
    if keep:
        store_sampler(model, name, kept_sampler(report))
        typer.echo(
            f"saved with {model} as {name}, its default: sample and evaluate use it; --sampler own, or guide --clear "
            f"--search sampler --keep-as {name}, undoes it"
        )
    else:
        typer.echo(f"{model} was not changed" + ("" if store is False else "; --store saves the choice nevertheless"))


def clear_sampler(model: Path, name: str) -> None:
    """Remove a named sampler."""
    from sddpm.guidance import store_sampler

    store_sampler(model, name, None)
    typer.echo(f"{model}: sampler {name} was removed")
