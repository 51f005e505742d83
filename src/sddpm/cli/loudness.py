"""The options --quiet and --verbose of every verb."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Annotated, Any

import typer

from sddpm.errors import UserError

Quiet = Annotated[bool, typer.Option("--quiet", help="Print only results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print more details.")]


def with_loudness(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with the two options."""
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [each.replace(kind=kind) for each in inspect.signature(verb).parameters.values()]
    added = [
        inspect.Parameter("quiet", kind, default=False, annotation=Quiet),
        inspect.Parameter("verbose", kind, default=False, annotation=Verbose),
    ]

    @functools.wraps(verb)
    def command(quiet: bool = False, verbose: bool = False, **arguments: Any) -> Any:
        with loudness(quiet, verbose):
            return verb(**arguments)

    command.__signature__ = inspect.Signature([*own, *added])  # pyright: ignore[reportAttributeAccessIssue]
    command.__annotations__ = {each.name: each.annotation for each in [*own, *added]}
    return command


@contextmanager
def loudness(quiet: bool, verbose: bool) -> Iterator[None]:
    """Inside the block nothing, or more, is written to stderr, where progress, notes and logs go. Errors are written
    after the block. Raises `UserError` if both are given."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose cannot be combined: choose one")
    if verbose:
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("sddpm").setLevel(logging.DEBUG)
    if not quiet:
        yield
        return
    with open(os.devnull, "w", encoding=sys.stderr.encoding) as nowhere, redirect_stderr(nowhere):
        yield
