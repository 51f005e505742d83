"""`distill`: trains a model that samples in few evaluations, by training runs with a section `distill`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.pretrained import find_pretrained
from sddpm.training.checkpoint import list_checkpoints
from sddpm.training.config import Config, DistillConfig
from sddpm.training.config_files import as_pairs, load_config
from sddpm.training.history import config_path
from sddpm.training.run import TrainResult, train
from sddpm.training.run_folder import check_run_folder


def distill(
    model: str | Path,
    out: str | Path,
    *,
    evaluations: int = 4,
    halve_from: int | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> TrainResult:
    """Train a model that samples in few evaluations what `model` samples in many.

    The student starts from the weights of its teacher and is trained with the config of `model` plus a section
    `distill`. In one stage it learns, at each of its time steps, to reach in one step where several steps of the
    teacher lead. With progressive halving (Salimans & Ho, 2022, arXiv 2202.00512) a student of `halve_from` evaluations
    learns two steps in one, then becomes the teacher of a student with half as many, and so on; the runs before the
    last are OUT-32, OUT-16, ...

    Args:
        model: a saved model with its config, or a run; it must predict v.
        out: new or empty folder of the run; `train` with `resume` can continue it too.
        evaluations: network evaluations per sample of the student, at least 1.
        halve_from: evaluations of the first student, `evaluations` times a power of two; None for one stage.
        overrides: as in `load_config`. train.steps applies to each stage; distill.x0_scale, order and guidance_scale
            apply to the steps of `model` only, not to later stages. train.teacher and distill.evaluations are set by
            the arguments, with halving also distill.substeps.
        resume: continue an interrupted call; the other arguments must be the same.
        device, progress: as in `train`.

    Returns:
        As `train`, for the last run.

    Raises:
        UserError: as in `train`; also a model without a config or that predicts epsilon, and evaluations that are
            invalid, coincide, or cannot be reached by halving; an `out` without a name.
    """
    out = Path(out)
    if out.name in ("", ".."):
        raise UserError(f"cannot write {out}: a folder name is needed")
    folders = {count: out.with_name(f"{out.name}-{count}") for count in stage_counts(evaluations, halve_from)}
    folders[evaluations] = out
    teachers = [named(model), *(str(folder.resolve()) for folder in folders.values())]
    base, given = _config_of(model), dict(as_pairs(overrides))
    stages = []
    for i, (teacher, count) in enumerate(zip(teachers, folders, strict=False)):
        config = student_config(base, teacher, count, given, halving=halve_from is not None, first=i == 0)
        stages.append((config, folders[count]))
    going = [resume and bool(list_checkpoints(folder)) for _, folder in stages]
    for (config, folder), goes_on in zip(stages, going, strict=True):
        check_run_folder(folder, config, goes_on)
    result = None
    for (config, folder), goes_on in zip(stages, going, strict=True):
        start = None if goes_on else config.train.teacher
        result = train(config, folder, resume=goes_on, init_from=start, device=device, progress=progress)
        if result.stopped_by != "steps":
            break
    assert result is not None
    return result


def stage_counts(evaluations: int, halve_from: int | None) -> list[int]:
    """Evaluations of the students, one stage after another. Raises `UserError` for invalid numbers."""
    for name, count in (("evaluations", evaluations), ("halve_from", halve_from)):
        if count is not None and (type(count) is not int or count < 1):
            raise UserError(f"`{name}` must be a whole number of at least 1, not {count!r}")
    counts = [halve_from or evaluations]
    while counts[-1] > evaluations and counts[-1] % 2 == 0:
        counts.append(counts[-1] // 2)
    if counts[-1] != evaluations:
        raise UserError(
            f"`halve_from={halve_from}` is not {evaluations} times a power of two: choose {evaluations * 8}, say"
        )
    return counts


def student_config(
    base: Path, teacher: str, evaluations: int, given: Mapping[str, Any], *, halving: bool = False, first: bool = True
) -> Config:
    """The config of a stage.

    Args:
        base: config.yaml of the original model.
        teacher: the teacher of the stage.
        evaluations: evaluations of the student.
        given: the user's overrides, by key.
        halving: whether the student learns two steps in one.
        first: whether the teacher is the original model rather than a student of an earlier stage.

    Raises:
        UserError: as in `load_config`.
    """
    own = {f"distill.{key}": field.default for key, field in DistillConfig.model_fields.items()}
    own |= {"distill.evaluations": evaluations, "train.teacher": teacher, "train.teacher_weight": 1.0}
    # The student's noise levels are fixed, and the teacher's steps are deterministic.
    own |= {"diffusion.density": "uniform", "diffusion.density_mean": None, "diffusion.density_width": None}
    own |= {"train.assign_noise": False, "diffusion.min_snr_gamma": None}
    if halving:  # with many evaluations the default grid coincides at low noise; uniform is Salimans & Ho's
        own |= {"distill.grid": "uniform"}
    _check_given(given, evaluations, halving)
    fixed: dict[str, Any] = {"distill.evaluations": evaluations, "distill.substeps": 2} if halving else {}
    if not first:  # the teacher's steps already include the scale and the guidance
        fixed |= {"distill.order": 1, "distill.x0_scale": 1.0, "distill.guidance_scale": 1.0}
    return load_config(base, {**own, **given, **fixed})


def named(model: str | Path) -> str:
    """The name of a model in a config. Folders are absolute paths, so that the run can be resumed from any folder."""
    return str(Path(model).resolve()) if Path(model).exists() and find_pretrained(model) is None else str(model)


def _check_given(given: Mapping[str, Any], evaluations: int, halving: bool) -> None:
    """Raise `UserError` for overrides that contradict the arguments of `distill`."""
    if "distill.evaluations" in given:
        raise UserError(f"distill.evaluations is set by `evaluations={evaluations}`: leave it out")
    if halving and "distill.substeps" in given:
        raise UserError("halving learns two steps of the teacher in one: leave out distill.substeps")
    if "train.teacher" in given:
        raise UserError("train.teacher is the model that is distilled: leave it out")


def _config_of(model: str | Path) -> Path:
    found = config_path(model)
    if found is None:
        raise UserError(f"{model} does not say how it was trained: a run, or a model with a config.yaml, is needed")
    return found
