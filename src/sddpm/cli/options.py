"""Options that several verbs share. (Names are spelled out: importing the registries would import torch.)"""

from typing import Annotated

import typer

_SOLVERS = (
    "ddpm, ddim, dpm++, sde-dpm++, unipc, pndm; after sddpm moments also analytic-dpm, analytic-ddim, analytic-dpm-ot."
)
Solver = Annotated[str, typer.Option(help=_SOLVERS, metavar="NAME")]
OwnSolver = Annotated[
    str | None, typer.Option("--solver", help=f"{_SOLVERS} (default: the model's own)", metavar="NAME")
]

ExitTolerance = Annotated[
    float | None,
    typer.Option(
        help="Leave the network once its readout changes by less than this from one SNN time step to the next, relative"
        " to it. (default: never)",
        metavar="X",
    ),
]

Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="Classes to sample, by number or name, several with commas; all, none (no class), or random: one drawn by"
        " each seed. (default: random, if the model knows classes)",
        metavar="CLASS",
    ),
]

X0Scale = Annotated[
    float | None,
    typer.Option(
        "--x0-scale",
        help="Take the clean image that the model predicts this many times, e.g. 1.01 where samples lack contrast."
        " (default: the model's own)",
        metavar="X",
    ),
]

GuidanceScale = Annotated[
    float, typer.Option(help="How strongly towards the class: 1 as trained; other values double the evaluations.")
]

Engine = Annotated[
    str,
    typer.Option(
        help="exact or fast: the compiled network; eager: as it is; auto: exact where that pays.", metavar="NAME"
    ),
]
