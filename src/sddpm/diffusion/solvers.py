"""Makes schedulers for this package's models, from a solver's name or another scheduler; properties of schedulers."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from sddpm.diffusion.objectives import check_prediction_type
from sddpm.diffusion.schedule import DIFFUSERS_NAMES, OUR_NAMES, NoiseSchedule
from sddpm.diffusion.solver_registry import SOLVERS as SOLVERS
from sddpm.diffusion.solver_registry import Solver
from sddpm.diffusion.timesteps import check_timesteps, described, is_distilled, kept_timesteps
from sddpm.errors import UserError
from sddpm.registry import registered


def make_scheduler(
    solver: str,
    *,
    num_train_timesteps: int = 1000,
    beta_schedule: str = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    prediction_type: str = "epsilon",
    clip_sample: bool = True,
    moments: Mapping[str, Any] | None = None,
    timesteps: Sequence[int] | None = None,
    distilled: bool = False,
) -> SchedulerMixin:
    """A diffusers scheduler that samples with `solver` from a model trained on the given noise schedule.

    Args:
        solver: a name of `SOLVERS`.
        num_train_timesteps, beta_schedule, beta_start, beta_end: as in `NoiseSchedule`.
        prediction_type: "epsilon" or "v_prediction".
        clip_sample: clamp the estimate of x_0 to [-1, 1] at every step.
        moments: `Moments.to_dict()` of the model, stored in the config of every scheduler; the analytic solvers need
            them.
        timesteps: decreasing time steps chosen for the model; stored in the config and used for this number of steps.
        distilled: whether the model was trained only for the strides between these time steps.

    Raises:
        UserError: an unknown name, an invalid noise schedule, or time steps that are outside it or not decreasing.
    """
    make = registered(SOLVERS, "solver", solver)
    check_prediction_type(prediction_type)
    NoiseSchedule(num_train_timesteps, beta_schedule, beta_start, beta_end)  # for its checks
    scheduler: Any = make(
        clip_sample,
        num_train_timesteps=num_train_timesteps,
        beta_schedule=DIFFUSERS_NAMES[beta_schedule],
        beta_start=beta_start,
        beta_end=beta_end,
        prediction_type=prediction_type,
    )
    if moments is not None:
        scheduler.register_to_config(moments=dict(moments))
    if timesteps is not None:
        check_timesteps(timesteps, num_train_timesteps)
        scheduler.register_to_config(timesteps=list(timesteps))
    if distilled:
        scheduler.register_to_config(distilled=True)
    kept_timesteps(scheduler.config)  # for its checks
    return scheduler


def solver_name(scheduler: SchedulerMixin) -> str | None:
    """The name in `SOLVERS` of a scheduler's solver; None if it is not one of them."""
    for name in _solvers_of(scheduler):
        try:
            ours = switch_solver(scheduler, name)
        except UserError:
            return None  # its noise schedule is not one of ours
        if _settings(ours) == _settings(scheduler):
            return name
    return None


def _solvers_of(scheduler: SchedulerMixin) -> dict[str, Solver]:
    """The solvers whose scheduler has this class."""
    return {name: solver for name, solver in SOLVERS.items() if solver.scheduler_class is type(scheduler)}


def _settings(scheduler: SchedulerMixin) -> dict[str, Any]:
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    return {key: value for key, value in config.items() if not key.startswith("_")}


def clips_sample(scheduler: SchedulerMixin) -> bool:
    """Whether the scheduler clamps its estimate of x_0: each class of diffusers has its own name for that."""
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    return bool(config.get("clip_sample", config.get("thresholding", False)))


# Properties of diffusers' own schedulers that start from unit noise: whether their steps add noise (None: depends on
# the config's algorithm_type; apart from eta), and whether a step depends on earlier ones.
STOCK: dict[str, tuple[bool | None, bool]] = {
    "DDPMScheduler": (True, False),
    "DDPMParallelScheduler": (True, False),
    "DDIMScheduler": (False, False),
    "DDIMParallelScheduler": (False, False),
    "CogVideoXDDIMScheduler": (False, False),
    "CogVideoXDPMScheduler": (True, True),
    "LCMScheduler": (True, False),
    "TCDScheduler": (False, False),
    "UnCLIPScheduler": (True, False),
    "PNDMScheduler": (False, True),
    "DEISMultistepScheduler": (False, True),
    "UniPCMultistepScheduler": (False, True),
    "DPMSolverMultistepScheduler": (None, True),
    "DPMSolverSinglestepScheduler": (None, True),
    "SASolverScheduler": (True, True),
}


def adds_noise(scheduler: SchedulerMixin, eta: float = 0.0) -> bool:
    """Whether the steps of a scheduler add fresh noise, so that the initial noise does not determine the result; yes
    for an unknown scheduler."""
    stochastic, _ = _traits(scheduler)
    return eta > 0 or stochastic


def is_multistep(scheduler: SchedulerMixin) -> bool:
    """Whether a step depends on earlier ones, so that the time steps must be used in order; yes for an unknown
    scheduler."""
    return _traits(scheduler)[1]


def _traits(scheduler: SchedulerMixin) -> tuple[bool, bool]:
    """(stochastic, multistep): from the solvers of its class if they agree, else from the exact solver, else from the
    table of diffusers' classes (not of their subclasses), else yes."""
    ours = _solvers_of(scheduler)
    found = {(solver.stochastic, solver.multistep) for solver in ours.values()}
    if len(found) > 1 and (name := solver_name(scheduler)) is not None:
        found = {(ours[name].stochastic, ours[name].multistep)}
    if len(found) == 1:
        return found.pop()
    kinds = [kind for kind in type(scheduler).__mro__ if kind.__module__.startswith("diffusers.")]
    own = type(scheduler).__module__.startswith(("diffusers.", "sddpm."))
    stochastic, multistep = STOCK.get(kinds[0].__name__, (True, True)) if own and kinds else (True, True)
    if stochastic is None:
        config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
        stochastic = not str(config.get("algorithm_type")).startswith("dpmsolver")
    return stochastic, multistep


def switch_solver(scheduler: SchedulerMixin, solver: str) -> SchedulerMixin:
    """A scheduler of another solver for the model that `scheduler` belongs to, with the same noise schedule, prediction
    type, moments and stored time steps.

    (diffusers' own `from_config` between two schedulers silently changes the spacing and the clamping.)

    Raises:
        UserError: unknown solver, a noise schedule that is neither linear nor cosine, or a distilled model, which
            supports only DDIM.
    """
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    beta_schedule = config.get("beta_schedule")
    if (
        beta_schedule not in OUR_NAMES
        or config.get("trained_betas") is not None
        or config.get("rescale_betas_zero_snr")
    ):
        raise UserError(
            "the scheduler of this model has its own noise schedule, which no other solver supports: leave out"
            " the solver (solver=None) to sample with the model's scheduler"
        )
    timesteps = kept_timesteps(config)
    if timesteps is not None and is_distilled(config) and solver in SOLVERS and solver != "ddim":
        raise UserError(f"{described(timesteps)}, with ddim: leave out `solver`, or give ddim, not {solver}")
    return make_scheduler(
        solver,
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=OUR_NAMES[beta_schedule],
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=clips_sample(scheduler),
        moments=config.get("moments"),
        timesteps=timesteps,
        distilled=is_distilled(config),
    )


def without_moments(scheduler: SchedulerMixin) -> SchedulerMixin:
    """The scheduler for other weights: moments are valid only for those with which they were measured. A solver that
    needs them becomes DDIM."""
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    if config.get("moments") is None:
        return scheduler
    if any(solver.needs_moments for solver in _solvers_of(scheduler).values()):
        scheduler = switch_solver(scheduler, "ddim")
    config = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    return type(scheduler).from_config({key: value for key, value in config.items() if key != "moments"})  # pyright: ignore
