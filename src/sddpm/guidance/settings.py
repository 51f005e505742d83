"""Settings of guidance."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from sddpm.choices import check_choice
from sddpm.diffusion.noise import MAX_SEED
from sddpm.errors import UserError
from sddpm.evaluation.metrics import METRICS
from sddpm.evaluation.settings import EvaluationSettings
from sddpm.evaluation.statistics_files import is_statistics_file
from sddpm.guidance.search import smallest_budget

GRIDS = {
    "paper": (0.997, 0.998, 0.999, 1.0, 1.001, 1.002, 1.003),
    "wide": (0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1),
    "scales": (0.995, 1.0, 1.005, 1.01, 1.02, 1.04, 1.07),
}
DEFAULT_GRID = tuple(sorted({*GRIDS["paper"], *GRIDS["wide"]}))
METHODS = ("grid", "coordinate")
FRESH = 2**31
"""Seeds from this one are for validation only: no search uses them, whatever its settings."""


@dataclass(frozen=True)
class GuidanceSettings:
    """The options of `sddpm guide`. Thresholds are multiples of the trained ones (which are 1 in SDDPM); x0_scale is
    absolute.

    evaluation: the model, one metric, the reference, sampling settings; `samples` are those of one seed set.
    seed_sets, validation_sets: numbers of seed sets for the search and for the validation.
    search: a name of `SEARCHES`. method: one of `METHODS`; None: grid if one number is free, else coordinate.
    grid, refinements: for the method grid; None: `DEFAULT_GRID` or the grid of scales. low, high: range otherwise.
    budget: number of choices to try, including the trained model; None: as many as the grid needs.
    groups, boundary: groups of layers and boundary of the denoising, as in `make_space`.
    resamples: number of bootstrap resamples.
    proxy_images: number of images for the noise-prediction loss; 0 for none. held_out: their source (a data set, with
    its test split if it has one, or a folder, zip or .npz); None: the reference.
    """

    evaluation: EvaluationSettings
    seed_sets: int = 2
    validation_sets: int = 2
    search: str = "scalar"
    method: str | None = None
    grid: tuple[float, ...] | None = None
    refinements: int = 2
    low: float = 0.9
    high: float = 1.1
    budget: int | None = None
    groups: tuple[str, ...] = ("encoder", "middle", "decoder")
    boundary: int | None = None
    resamples: int = 300
    proxy_images: int = 256
    held_out: str | None = None


@dataclass(frozen=True)
class SearchPlan:
    """The settings with their defaults filled in. `grid` also contains 1, the trained model."""

    method: str
    grid: tuple[float, ...]
    budget: int
    search_seeds: list[int] = field(default_factory=list)
    validation_seeds: list[int] = field(default_factory=list)


def guiding_metrics() -> list[str]:
    """The metrics that guidance can use: those with a distance for weighted samples."""
    return [name for name, metric in METRICS.items() if metric.distance is not None]


def default_method(search: str) -> str:
    """The method of a search if none is given: a grid for one free number."""
    return "grid" if search in ("scalar", "x0-scale") else "coordinate"


def plan_search(settings: GuidanceSettings, axes: int, samples: int) -> SearchPlan:
    """Fill in the defaults.

    Args:
        settings: the given settings.
        axes: number of free numbers.
        samples: number of samples in a seed set.

    Raises:
        UserError: values out of range.
    """
    method = settings.method or default_method(settings.search)
    check_choice("method", method, METHODS)
    if method == "grid" and axes > 1:
        raise UserError(f"a grid searches one number, not {axes}: choose `method=coordinate`")
    default = GRIDS["scales"] if settings.search == "x0-scale" else DEFAULT_GRID
    grid = default if settings.grid is None else settings.grid
    for multiple in (*grid, settings.low, settings.high):
        if not (math.isfinite(multiple) and multiple > 0):
            raise UserError(f"thresholds and scales must be positive numbers, not {multiple:g}")
    if not settings.low < 1 < settings.high:
        raise UserError(f"the range must go from below 1 to above, not from {settings.low:g} to {settings.high:g}")
    for name, value, least in (
        ("seed_sets", settings.seed_sets, 1),
        ("validation_sets", settings.validation_sets, 1),
        ("refinements", settings.refinements, 0),
        ("resamples", settings.resamples, 20),
        ("proxy_images", settings.proxy_images, 0),
    ):
        if value < least:
            raise UserError(f"`{name}` must be at least {least}, not {value}")
    if settings.proxy_images == 1:
        raise UserError("`proxy_images` must be 0, for none, or at least 2")
    grid = tuple(sorted({*grid, 1.0}))
    least = smallest_budget(method, axes, grid)
    budget = settings.budget
    if budget is None:
        if method != "grid":
            raise UserError(f"`budget`, the number of choices to try, is needed: at least {least}")
        budget = len(grid) + 3 * settings.refinements
    if budget < least:
        raise UserError(f"`budget={budget}` is too small: {method} needs at least {least}, including the trained model")
    first = settings.evaluation.sampling.first_seed
    if first < 0 or first + settings.seed_sets * samples > FRESH:
        raise UserError(f"the seeds of the search must lie in 0 to {FRESH - 1}: choose another `first_seed`")
    if FRESH + first + settings.validation_sets * samples - 1 > MAX_SEED:
        raise UserError("there are not enough fresh seeds: choose a smaller `first_seed` or fewer `validation_sets`")
    return SearchPlan(
        method,
        grid,
        budget,
        [first + i * samples for i in range(settings.seed_sets)],
        [FRESH + first + i * samples for i in range(settings.validation_sets)],
    )


def default_held_out(settings: GuidanceSettings) -> str | None:
    """The source of the images for the loss; None if there are none."""
    if settings.held_out is not None:
        return settings.held_out
    reference = settings.evaluation.reference
    return None if reference is None or is_statistics_file(Path(reference)) else reference
