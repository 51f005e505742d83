"""At which time steps a network is evaluated: they fall from N - 1; after the last comes the clean image."""

from sddpm.errors import UserError


def check_steps(num_inference_steps: int, num_train_timesteps: int) -> None:
    """Raise UserError for fewer than 1 or more than N steps."""
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise UserError(f"steps must be from 1 to {total} (the model was trained with {total}), not {n}")


def respaced_timesteps(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """n of N time steps, in strides as equal as whole numbers allow, the last one, to the clean image, included.

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

    Unlike `respaced_timesteps` it ends at 0, as Analytic-DPM needs it: its last step, to the clean image, adds no
    noise, and from further off it would lose variance that was computed with care.
    """
    steps, total = num_inference_steps, num_train_timesteps
    if steps == 1:
        return [total - 1]
    return [round((total - 1) * (steps - 1 - i) / (steps - 1)) for i in range(steps)]
