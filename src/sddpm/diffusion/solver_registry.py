"""The sampling solvers by name, as records that need no torch import; users add theirs with `register_solver`.

Order: the error of a deterministic solver falls with the number of steps n as n^-order, between two fixed noise levels.
The last stride, to the clean image, is of first order in all solvers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sddpm.errors import UserError
from sddpm.registry import register


@dataclass(frozen=True)
class Solver:
    """A sampling method.

    Attributes:
        make: a function, or its location as "module:function". It makes the scheduler from clip_sample (whether to
            clamp x_0 to [-1, 1] at every step) and keywords of the model: num_train_timesteps, beta_schedule (in
            diffusers' names), beta_start, beta_end, prediction_type. The scheduler is a diffusers scheduler, starts
            from unit noise, has a table alphas_cumprod, and stores these values in its config.
        scheduler: the class of the scheduler that `make` returns, or its location as "module:Class".
        stochastic: whether its steps add fresh noise (apart from DDIM's eta).
        multistep: whether a step depends on earlier ones, so that time steps must be used in order.
        order: of the error, as above; None for stochastic ones.
        description: one line, for help texts, with the source.
        needs_moments: whether the model's moments must have been measured (`sddpm moments`).
    """

    make: str | Callable[..., Any]
    scheduler: str | type
    stochastic: bool
    multistep: bool
    order: int | None = None
    description: str = ""
    needs_moments: bool = False

    def __call__(self, clip_sample: bool, **model: Any) -> Any:
        """Make the scheduler; arguments as in `make`."""
        return _found(self.make)(clip_sample, **model)

    @property
    def scheduler_class(self) -> type:
        """The class of the scheduler."""
        return _found(self.scheduler)


def _found(part: Any) -> Any:
    """Import "module:name"; anything but a string is returned unchanged."""
    if not isinstance(part, str):
        return part
    module, _, name = part.partition(":")
    return getattr(import_module(module), name)


_MAKERS = "sddpm.diffusion.schedulers"
_RESPACED = "sddpm.diffusion.respaced"
_ANALYTIC = "sddpm.diffusion.analytic:AnalyticDPMScheduler"

SOLVERS: dict[str, Solver] = {
    "ddpm": Solver(
        f"{_MAKERS}:ddpm",
        f"{_RESPACED}:RespacedDDPMScheduler",
        stochastic=True,
        multistep=False,
        description="ancestral sampling as in SDDPM (Ho et al., 2020)",
    ),
    "ddim": Solver(
        f"{_MAKERS}:ddim",
        f"{_RESPACED}:RespacedDDIMScheduler",
        stochastic=False,
        multistep=False,
        order=1,
        description="DDIM (Song et al., 2021)",
    ),
    "dpm++": Solver(
        f"{_MAKERS}:dpm_solver_pp",
        f"{_RESPACED}:RespacedDPMSolverScheduler",
        stochastic=False,
        multistep=True,
        order=2,
        description="DPM-Solver++(2M) (Lu et al., 2022)",
    ),
    "sde-dpm++": Solver(
        f"{_MAKERS}:sde_dpm_solver_pp",
        f"{_RESPACED}:RespacedDPMSolverScheduler",
        stochastic=True,
        multistep=True,
        description="SDE-DPM-Solver++(2M) (Lu et al., 2022, section 5)",
    ),
    "unipc": Solver(
        f"{_MAKERS}:unipc",
        f"{_RESPACED}:RespacedUniPCScheduler",
        stochastic=False,
        multistep=True,
        order=3,
        description="UniPC-2, B2(h) (Zhao et al., 2023)",
    ),
    "pndm": Solver(
        f"{_MAKERS}:pndm",
        f"{_RESPACED}:RespacedPNDMScheduler",
        stochastic=False,
        multistep=True,
        order=2,
        description="PNDM's linear multistep (Liu et al., 2022)",
    ),
    "analytic-dpm": Solver(
        f"{_MAKERS}:analytic_dpm",
        _ANALYTIC,
        stochastic=True,
        multistep=False,
        description="Analytic-DPM (Bao et al., 2022)",
        needs_moments=True,
    ),
    "analytic-ddim": Solver(
        f"{_MAKERS}:analytic_ddim",
        _ANALYTIC,
        stochastic=True,
        multistep=False,
        description="Analytic-DPM with DDIM's mean",
        needs_moments=True,
    ),
    "analytic-dpm-ot": Solver(
        f"{_MAKERS}:analytic_dpm_ot",
        _ANALYTIC,
        stochastic=True,
        multistep=False,
        description="Analytic-DPM on its optimal trajectory",
        needs_moments=True,
    ),
}


def register_solver(
    name: str,
    make: Callable[..., Any],
    scheduler: type,
    *,
    stochastic: bool,
    multistep: bool,
    order: int | None = None,
    description: str = "",
) -> None:
    """Add a solver: pipelines, the command line and all messages then use it under that name.

    Args:
        name: a letter, then letters, digits and any of _.+-
        make, scheduler, stochastic, multistep, order, description: as in `Solver`.

    Raises:
        UserError: an invalid name, or one that is taken.
    """
    if not callable(make) or not isinstance(scheduler, type):
        raise UserError(f"solver {name!r} needs a function that makes a scheduler, and the scheduler's class")
    register(SOLVERS, "solver", name, Solver(make, scheduler, stochastic, multistep, order, description))


def deterministic_solvers() -> str:
    """Names of the solvers whose steps add no noise, for messages: "ddim, dpm++ or unipc"."""
    return _listed(name for name, solver in SOLVERS.items() if not solver.stochastic)


def single_step_solvers() -> str:
    """Names of the solvers whose steps do not depend on each other, for messages."""
    return _listed(name for name, solver in SOLVERS.items() if not solver.multistep)


def names_for_help() -> str:
    """All names, for help texts."""
    measured = [name for name, solver in SOLVERS.items() if solver.needs_moments]
    plain = [name for name in SOLVERS if name not in measured]
    return f"{', '.join(plain)}; after sddpm moments also {', '.join(measured)}"


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
