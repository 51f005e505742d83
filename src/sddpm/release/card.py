"""The model card: README.md of a released model, in the format of the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sddpm.energy.account import Account
from sddpm.energy.cost import CostModel
from sddpm.energy.report import count, joules, percent
from sddpm.release.evaluations import Evaluation
from sddpm.training import Config
from sddpm.training.config_files import to_yaml
from sddpm.training.history import Stage

TEMPLATE = files("sddpm.release") / "card.md.jinja"
TASK = "unconditional-image-generation"


@dataclass(frozen=True)
class CardFacts:
    """The contents of a card. stages: the model's history, its own training last; steps: of its solver, None if a named
    sampler is the default; samplers: the named ones in words, and sampler, the default one. timesteps: those that its
    scheduler keeps. picture: what samples.png shows; classes: their names or numbers, empty for a model without."""

    name: str
    config: Config
    stages: Sequence[Stage]
    hardware: str
    licence: str
    parameters: int
    account: Account
    steps: int | None
    evaluations: Sequence[Evaluation]
    versions: str
    picture: str
    classes: Sequence[str] = ()
    samplers: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    timesteps: Sequence[int] | None = None


def card_text(facts: CardFacts) -> str:
    """Markdown with the hub's header, from the template next to this file."""
    data, model = facts.config.data, facts.config.model
    ledger = facts.account.ledger
    totals = ledger.totals()
    card = ModelCard.from_template(
        _header(facts),
        template_path=str(TEMPLATE),
        name=facts.name,
        kind="spiking U-Net" if ledger.spiking else "U-Net without spikes",
        parameters=facts.parameters,
        spiking=ledger.spiking,
        T=ledger.T,
        form=_form(facts),
        what="signals" if _of_signals(facts) else "images",
        data=data,
        own_data=data.dataset == "folder",
        train=facts.config.train,
        last=[stage for stage in facts.stages if stage.what == "trained"][-1],
        neuron=(model.neuron or "none").upper(),
        hardware=facts.hardware,
        versions=facts.versions,
        stages=[_stage(stage) for stage in facts.stages],
        evaluations=facts.evaluations,
        copies=next((e for e in facts.evaluations if e.near_copies is not None), None),
        ledger=ledger,
        steps=facts.steps,
        timesteps=facts.timesteps,
        distill=facts.config.distill,
        samplers=facts.samplers,
        sampler=facts.sampler,
        picture=facts.picture,
        classes=facts.classes,
        ac=count(totals["ac"]),
        mac=count(totals["mac"]),
        energy=[_energy(facts.account, cost) for cost in facts.account.costs],
        licence=facts.licence,
        config=to_yaml(facts.config).rstrip(),
    )
    return str(card).rstrip() + "\n"


def _header(facts: CardFacts) -> ModelCardData:
    dataset = facts.config.data.dataset
    results = [
        EvalResult(
            TASK, dataset, dataset, each.metric, each.value, metric_name=f"{each.metric}, {each.samples:,} samples"
        )
        for each in facts.evaluations
    ]
    return ModelCardData(
        license=facts.licence,
        library_name="sddpm",
        pipeline_tag=None if _of_signals(facts) else TASK,
        datasets=[dataset],
        tags=["spiking-neural-network", "diffusion", "sddpm"],
        model_name=facts.name,
        eval_results=results or None,
    )


def _stage(stage: Stage) -> list[str]:
    """The cells of a stage in the table of stages."""
    numbers = (stage.steps, stage.images, round(stage.seconds / 60))
    cells = [f"{stage.what}: {stage.parts}" if stage.parts else stage.what, stage.kind, str(stage.T)]
    cells += [stage.dataset or "", *(f"{number:,}" if number else "" for number in numbers), stage.teacher or ""]
    return cells


def _of_signals(facts: CardFacts) -> bool:
    return facts.config.model.dims == 1


def _form(facts: CardFacts) -> str:
    size = facts.config.data.image_size
    if _of_signals(facts):
        return f"signals of {size} samples"
    return f"{'grey' if facts.config.data.channels == 1 else 'colour'} images of {size} x {size} pixels"


def _energy(account: Account, cost: CostModel) -> list[str]:
    """The cells for a cost model in the table of energies."""
    ledger, twin = account.ledger, account.twin
    return [
        cost.name,
        joules(ledger.per_evaluation(cost).total),
        joules(ledger.per_sample(cost).total),
        joules(twin.per_evaluation(cost).total) if twin else "",
        percent(account.saving(cost)),
    ]
