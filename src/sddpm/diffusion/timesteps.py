"""The time steps of the network's evaluations: they decrease from N - 1; after the last step comes the clean image.

A scheduler's config can store `timesteps` that were chosen for its model; it uses them for this number of steps. If
`distilled` is true, the model was trained only for the strides between these, and any other use is refused.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sddpm.errors import UserError


def check_steps(num_inference_steps: int, num_train_timesteps: int) -> None:
    """Raise UserError for fewer than 1 or more than N steps."""
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise UserError(f"steps must be from 1 to {total} (the model was trained with {total}), not {n}")


def takes_timesteps(scheduler: Any) -> bool:
    """Whether the `set_timesteps` of a scheduler's class takes time steps."""
    return "timesteps" in inspect.signature(scheduler.set_timesteps).parameters


def respaced_timesteps(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """n of N time steps, in strides as equal as whole numbers allow, including the last one to the clean image.

    With k = t + 1 the number of noising steps, k_i = N (n - i) / n rounded, i = 0 .. n - 1, and k_n = 0 ("trailing" in
    table 2 of Lin et al., 2024).

    Raises:
        UserError: fewer than 1 or more than N steps.
    """
    check_steps(num_inference_steps, num_train_timesteps)
    n, total = num_inference_steps, num_train_timesteps
    return [(2 * total * (n - i) + n) // (2 * n) - 1 for i in range(n)]


def even_trajectory(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """n time steps from N - 1 down to 0, as evenly apart as whole numbers allow (N - 1 alone for one).

    Unlike `respaced_timesteps` it ends at 0, as needed by Analytic-DPM: its last step, to the clean image, adds no
    noise, and from a noisier level it would lose variance that was computed with care.

    Raises:
        UserError: fewer than 1 or more than N steps.
    """
    check_steps(num_inference_steps, num_train_timesteps)
    steps, total = num_inference_steps, num_train_timesteps
    if steps == 1:
        return [total - 1]
    return [round((total - 1) * (steps - 1 - i) / (steps - 1)) for i in range(steps)]


def check_timesteps(timesteps: Any, num_train_timesteps: int | None = None, name: str = "`timesteps`") -> None:
    """Raise UserError unless `timesteps` is a sequence of decreasing whole numbers from 0 to N - 1 (without N: at least
    0); `name` is its name in the message."""
    found: list[Any] = list(timesteps) if isinstance(timesteps, list | tuple) else []
    whole = len(found) > 0 and all(type(t) is int for t in found)
    falls = whole and found[-1] >= 0 and all(t > s for t, s in pairwise(found))
    if not falls or (num_train_timesteps is not None and found[0] >= num_train_timesteps):
        most = "" if num_train_timesteps is None else f", from {num_train_timesteps - 1} at most"
        raise UserError(f"{name} must be decreasing whole numbers{most} to 0 at least, not {repr(timesteps)[:80]}")


def kept_timesteps(config: Mapping[str, Any]) -> list[int] | None:
    """The time steps stored in a scheduler's config, None if there are none.

    Raises:
        UserError: they are not decreasing whole numbers in the noise schedule, or `distilled` is set without them.
    """
    kept, distilled = config.get("timesteps"), config.get("distilled")
    if distilled not in (None, True, False) or (distilled and kept is None):
        raise UserError(
            f"a distilled model needs its timesteps, and distilled must be true or false, not {distilled!r}"
        )
    if kept is None:
        return None
    check_timesteps(kept, config["num_train_timesteps"], "timesteps")
    return list(kept)


def is_distilled(config: Mapping[str, Any]) -> bool:
    """Whether the model of a scheduler with this config can only sample at its stored time steps."""
    return bool(config.get("distilled"))


def own_steps(config: Mapping[str, Any]) -> int | None:
    """The number of steps stored in a scheduler's config, None if there is none. Raises `UserError` as `kept_timesteps`
    does."""
    kept = kept_timesteps(config)
    return None if kept is None else len(kept)


def chosen_timesteps(
    num_inference_steps: int | None, timesteps: Sequence[int] | None, config: Mapping[str, Any]
) -> list[int] | None:
    """The time steps to use: those given, else those stored in the scheduler's config, if their number matches or no
    number is given; None for `num_inference_steps` even ones.

    Raises:
        UserError: different numbers of steps and time steps; invalid time steps; steps or time steps that a distilled
            model does not support.
    """
    kept = kept_timesteps(config)
    if timesteps is not None:
        check_timesteps(timesteps, config["num_train_timesteps"])
        check_count(num_inference_steps, timesteps)
    elif kept is not None and num_inference_steps in (None, len(kept)):
        return kept
    if kept is not None and is_distilled(config) and list(timesteps or ()) != kept:
        if timesteps is not None:
            raise UserError(f"{described(kept)}: leave out `timesteps`, or give these time steps")
        raise UserError(f"{described(kept)}: leave out `num_inference_steps`, or give {len(kept)}, not"
                        f" {num_inference_steps}")  # fmt: skip
    return None if timesteps is None else list(timesteps)


def check_count(num_inference_steps: int | None, timesteps: Sequence[int]) -> None:
    """Raise UserError if the numbers of steps and time steps differ."""
    if num_inference_steps not in (None, count := len(timesteps)):
        raise UserError(
            f"`num_inference_steps={num_inference_steps}` does not fit {count} `timesteps`: give one of them"
        )


def timesteps_for(
    num_inference_steps: int | None,
    config: Mapping[str, Any],
    timesteps: Sequence[int] | None = None,
    even: Callable[[int, int], list[int]] = respaced_timesteps,
) -> list[int]:
    """The time steps of a scheduler with this config: those of `chosen_timesteps`, else `even` ones.

    Raises:
        UserError: as in `chosen_timesteps` and `even`; neither steps nor time steps are given.
    """
    chosen = chosen_timesteps(num_inference_steps, timesteps, config)
    if chosen is not None:
        return chosen
    if num_inference_steps is None:
        raise UserError("give a number of steps or `timesteps`")
    return even(num_inference_steps, config["num_train_timesteps"])


def refuse_other_samplers(config: Mapping[str, Any]) -> None:
    """Raise `UserError` if a scheduler's config is that of a distilled model, which has a single sampler."""
    if is_distilled(config):
        raise UserError(f"{described(kept_timesteps(config) or [])}: it has no other sampler")


def described(timesteps: list[int]) -> str:
    """The evaluations of a distilled model, for messages."""
    many = f"{len(timesteps)} evaluations" if len(timesteps) > 1 else "1 evaluation"
    return f"this model was distilled to {many}, at t = {', '.join(map(str, timesteps))}"
