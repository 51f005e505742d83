"""Options that several verbs share."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, NamedTuple

import typer

from sddpm.diffusion.solver_registry import names_for_help
from sddpm.errors import UserError
from sddpm.written import listed_thresholds

OWN = "own"
MODEL = "The name of a model (sddpm list models), a saved model or run, or USER/MODEL on the Hugging Face hub."
CHANGED = f"{MODEL} A model that comes with sddpm is not changed: copy it first."
MODEL_OR_ONNX = MODEL.replace(", or ", ", FILE.onnx, or ")

Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="Classes to sample, by number or name, several separated by commas; all, none (no class), or random: one"
        " drawn from each seed. (default: random, if the model has classes)",
        metavar="CLASS",
    ),
]


def parse_thresholds(values: list[str] | None) -> Any:
    """As `listed_thresholds`; None for None. Raises `UserError`."""
    return listed_thresholds(values or [])


def parse_timesteps(text: str | None) -> tuple[int, ...] | None:
    """Time steps from "999,850,600". Raises `UserError` for anything else."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise UserError(f"--timesteps {text!r}: whole numbers such as 999,850,600 are needed")
    return tuple(map(int, parts))


def parse_solver(name: str | None) -> str | None:
    """The name of a solver; None for "own", the model's solver."""
    return None if name == OWN else name


def refuse_options(ctx: typer.Context, names: Collection[str], why: str) -> None:
    """Raise `UserError` if one of these parameters of the running verb was given: its option, and `why`."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise UserError(f"{parameter.opts[0]} {why}")


class Row(NamedTuple):
    """One field of `SamplingOptions` on the command line.

    flags: its names. kind: its type. default: its default unless the verb has another. help: its description. unsaid:
    the default in words if it is None. read: converts typer's value to the record's.
    """

    flags: tuple[str, ...]
    kind: Any
    default: Any
    help: str
    unsaid: str = ""
    metavar: str | None = None
    read: Callable[[Any], Any] = lambda value: value


SAMPLING: dict[str, Row] = {
    "solver": Row(
        ("--solver",),
        str | None,
        None,
        f"{names_for_help()}; or own, the model's. ddpm leaves noise with few steps and needs hundreds.",
        "the model's own",
        "NAME",
        parse_solver,
    ),
    "num_inference_steps": Row(
        ("--steps", "--num-inference-steps"),
        int | None,
        None,
        "Steps of the solver.",
        "the model's own, else 50, or all if fewer",
    ),
    "eta": Row(("--eta",), float, 0.0, "Noise added by ddim: 0 none, 1 as ddpm."),
    "guidance_scale": Row(
        ("--guidance-scale",),
        float,
        1.0,
        "Strength of guidance towards the class: 1 is none; other values double the evaluations.",
    ),
    "v_threshold": Row(
        ("--v-threshold",),
        list[str] | None,
        None,
        "Firing threshold of all neurons, 0.99x for multiples of the trained ones, LAYERS=V for some layers (* matches"
        " anything), or trained; can be repeated, later ones win.",
        "the choice of sddpm guide, else the trained ones",
        "V",
        parse_thresholds,
    ),
    "x0_scale": Row(
        ("--x0-scale",),
        float | None,
        None,
        "Multiply the predicted clean image by this number, e.g. 1.01 if samples lack contrast.",
        "the model's own",
        "X",
    ),
    "noise_clip": Row(
        ("--noise-clip",),
        float | None,
        None,
        "Limit the initial noise to this many standard deviations, e.g. 2 against speckles; inf: no limit. For solvers"
        " that add no noise.",
        "the sampler's own, else no limit",
        "X",
    ),
    "timesteps": Row(
        ("--timesteps",),
        str | None,
        None,
        "Evaluate the network at these decreasing time steps, e.g. 999,850,600,300; instead of --steps.",
        "the model's own, else even ones",
        "LIST",
        parse_timesteps,
    ),
    "sampler": Row(
        ("--sampler",),
        str | None,
        None,
        "Name of a sampler saved with the model (sddpm info lists them); or own.",
        "the model's default, unless --solver, --steps or --timesteps is given",
        "NAME",
    ),
    "engine": Row(
        ("--engine",),
        str,
        "auto",
        "exact or fast: the compiled network; eager: uncompiled; auto: exact if that is faster.",
        metavar="NAME",
    ),
    "exit_tolerance": Row(
        ("--exit-tolerance",),
        float | None,
        None,
        "Stop evaluating the network when the relative change of its readout from one SNN time step to the next is "
        "below"
        " this.",
        "never",
        "X",
    ),
    "batch_size": Row(("--batch-size",), int, 16, "Images at a time; it does not change the image of a seed."),
}

Sampling = dict[str, Any]
"""Keywords of `SamplingOptions`, as passed to a verb."""


def with_sampling_options(*without: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator of verbs: the parameter `sampling` becomes an option for each field of `SamplingOptions`.

    Args:
        without: fields that the verb does not have.
        defaults: defaults of fields that differ from those of `SAMPLING`; that of the solver is for calls without a
            sampler.
    """
    rows = {name: row for name, row in SAMPLING.items() if name not in without}
    solver = defaults.pop("solver", None)
    if solver is not None:
        rows["solver"] = rows["solver"]._replace(unsaid=f"{solver}, unless a sampler is named")

    def parameter(name: str, row: Row) -> inspect.Parameter:
        default = defaults.get(name, row.default)
        help = f"{row.help} (default: {row.unsaid})" if default is None else row.help
        option = typer.Option(*row.flags, help=help, metavar=row.metavar)
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(name, kind, default=default, annotation=Annotated[row.kind, option])

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(verb).parameters.values():
            own = own.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += [parameter(*item) for item in rows.items()] if own.name == "sampling" else [own]

        @functools.wraps(verb)
        def command(**arguments: Any) -> None:
            own = arguments["solver"] == OWN
            sampling = {name: row.read(arguments.pop(name)) for name, row in rows.items()}
            if sampling["sampler"] is None and own:
                sampling["sampler"] = OWN  # else the default sampler would bring its solver
            elif sampling["sampler"] is None and sampling["solver"] is None:
                sampling["solver"] = solver
            verb(sampling=sampling, **arguments)

        command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate
