"""Named samplers: ways of sampling saved with a model under names, one of which can be the default."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sddpm.choices import check_choice
from sddpm.diffusion.noise import check_noise_clip
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.diffusion.timesteps import check_count, check_steps, check_timesteps
from sddpm.errors import UserError
from sddpm.registry import check_name

OWN = "own"
FIELDS = ("solver", "num_inference_steps", "timesteps", "x0_scale", "noise_clip")


@dataclass(frozen=True)
class Sampler:
    """A way of sampling from a model. None means the model's own.

    Attributes:
        solver, num_inference_steps, timesteps, x0_scale, noise_clip: as in `SamplingOptions`.
        about: how it was found, as plain values.
    """

    solver: str | None = None
    num_inference_steps: int | None = None
    timesteps: tuple[int, ...] | None = None
    x0_scale: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    noise_clip: float | None = None

    def options(self) -> dict[str, Any]:
        """The fields of `SamplingOptions` that it sets."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model_index.json; `read_samplers` reads them."""
        plain = {name: value for name, value in asdict(self).items() if value not in (None, {})}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def __str__(self) -> str:
        """In words, such as "unipc with 10 steps, x0_scale 1.02"."""
        solver = self.solver or "the model's solver"
        if self.timesteps is not None:
            words = f"{solver} at {len(self.timesteps)} time steps, {', '.join(map(str, self.timesteps))}"
        elif self.num_inference_steps is not None:
            words = f"{solver} with {self.num_inference_steps} steps"
        else:
            words = solver
        words += "" if self.x0_scale is None else f", x0_scale {self.x0_scale:g}"
        return words + ("" if self.noise_clip is None else f", noise clipped at {self.noise_clip:g}")


def read_samplers(samplers: Any, default: Any, num_train_timesteps: int) -> dict[str, Sampler]:
    """The samplers of a model_index.json.

    Args:
        samplers: {name: as in `Sampler.to_dict`}; None for none.
        default: the name of one of them; None or "own" for the model's own values.
        num_train_timesteps: number of diffusion steps of the model.

    Raises:
        UserError: anything else.
    """
    if not isinstance(samplers, Mapping | None) or not all(
        isinstance(each, Mapping) for each in (samplers or {}).values()
    ):
        raise UserError(f"samplers must map names to samplers, not {repr(samplers)[:80]}")
    found = {}
    for name, plain in (samplers or {}).items():
        check_sampler_name(name)
        try:
            found[name] = _read(plain, num_train_timesteps)
        except UserError as error:
            raise UserError(f"sampler {name!r}: {error}") from error
    if default not in (None, OWN):
        check_choice("sampler", default, found)
    return found


def check_sampler_name(name: Any) -> None:
    """Raise `UserError` unless `name` is a valid name of a sampler."""
    check_name("sampler", name)
    if name == OWN:
        raise UserError(f"a sampler cannot be named {OWN!r}, which means the model's own values: choose another name")


def _read(plain: Mapping[str, Any], num_train_timesteps: int) -> Sampler:
    for key in plain:
        check_choice("key", key, (*FIELDS, "about"))
    if (solver := plain.get("solver")) is not None:
        check_choice("solver", solver, SOLVERS)
    if (steps := plain.get("num_inference_steps")) is not None:
        if type(steps) is not int:
            raise UserError(f"num_inference_steps must be a whole number, not {steps!r}")
        check_steps(steps, num_train_timesteps)
    if (timesteps := plain.get("timesteps")) is not None:
        check_timesteps(timesteps, num_train_timesteps)
        check_count(steps, timesteps)
    if (scale := plain.get("x0_scale")) is not None:
        check_x0_scale(scale)
    if (bound := plain.get("noise_clip")) is not None:
        check_noise_clip(bound)
    about = plain.get("about", {})
    if not isinstance(about, Mapping):
        raise UserError(f"about must be plain values, not {repr(about)[:80]}")
    return Sampler(solver, steps, None if timesteps is None else tuple(timesteps), scale, about, bound)
