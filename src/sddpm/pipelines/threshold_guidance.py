"""Firing thresholds chosen after training (threshold guidance, SDDPM section 4.3), as they are saved with a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds, parse_threshold


@dataclass(frozen=True)
class StagedThresholds:
    """Firing thresholds for the noisy part of the denoising, t >= boundary, and for the rest. Can be used as the
    pipeline's function of (index, t)."""

    early: Thresholds
    late: Thresholds
    boundary: int

    def __call__(self, index: int, t: int) -> Thresholds:
        return self.early if t >= self.boundary else self.late


PlainThresholds = Thresholds | StagedThresholds


def to_json(thresholds: PlainThresholds) -> float | str | dict[str, Any]:
    """A number or multiple ("0.9x"), {layer pattern: either}, or {"early": ..., "late": ..., "boundary": t}.

    `from_json` is the inverse.
    """
    if isinstance(thresholds, StagedThresholds):
        stages = {"early": to_json(thresholds.early), "late": to_json(thresholds.late)}
        return {**stages, "boundary": thresholds.boundary}
    return dict(thresholds) if isinstance(thresholds, Mapping) else thresholds


def from_json(plain: Any) -> PlainThresholds:
    """The thresholds that `to_json` wrote. Raises `UserError` for anything else."""
    stages = {"early", "late", "boundary"}
    if not isinstance(plain, Mapping) or not stages & set(plain):
        return _thresholds(plain)
    if set(plain) != stages or type(plain["boundary"]) is not int:
        raise UserError(f"threshold_guidance is damaged: {plain!r} must have early, late and boundary")
    return StagedThresholds(_thresholds(plain["early"]), _thresholds(plain["late"]), plain["boundary"])


def kept_thresholds(guidance: Mapping[str, Any] | None) -> PlainThresholds | None:
    """The thresholds of a pipeline's `threshold_guidance`; None if there is none. Raises `UserError` if damaged."""
    if guidance is None:
        return None
    if not isinstance(guidance, Mapping) or "v_threshold" not in guidance:
        raise UserError(
            "threshold_guidance is damaged: it has no v_threshold; `store_guidance(model, None)` removes it"
        )
    return from_json(guidance["v_threshold"])


def _thresholds(plain: Any) -> Thresholds:
    values = list(plain.values()) if isinstance(plain, Mapping) else [plain]
    if not values:
        raise UserError("threshold_guidance is damaged: it has no thresholds")
    try:
        for value in values:
            parse_threshold(value)
    except UserError as error:
        raise UserError(f"threshold_guidance is damaged, {plain!r}: {error}") from error
    return dict(plain) if isinstance(plain, Mapping) else plain
