"""The model card: README.md of a released model, in the form that the Hugging Face hub reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCardData

from sddpm.energy.account import Account
from sddpm.energy.report import count, joules, percent
from sddpm.release.evaluations import Evaluation
from sddpm.training import Config
from sddpm.training.config_files import to_yaml
from sddpm.training.history import Stage

TASK = "unconditional-image-generation"


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of. stages: how the model came to be, its own training last."""

    name: str
    config: Config
    stages: Sequence[Stage]
    hardware: str
    licence: str
    parameters: int
    account: Account
    evaluations: Sequence[Evaluation]
    versions: str


def card_text(facts: CardFacts) -> str:
    """Markdown with the hub's header."""
    return "\n".join([_header(facts), *_sections(facts)]) + "\n"


def _header(facts: CardFacts) -> str:
    dataset = facts.config.data.dataset
    results = [
        EvalResult(
            TASK, dataset, dataset, each.metric, each.value, metric_name=f"{each.metric}, {each.samples:,} samples"
        )
        for each in facts.evaluations
    ]
    data = ModelCardData(
        license=facts.licence,
        library_name="sddpm",
        pipeline_tag=None if _of_signals(facts) else TASK,
        datasets=[dataset],
        tags=["spiking-neural-network", "diffusion", "sddpm"],
        model_name=facts.name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _sections(facts: CardFacts) -> list[str]:
    data, model, train = facts.config.data, facts.config.model, facts.config.train
    average = f"EMA, {train.ema_decay}" if train.ema_decay else "of the last step"
    last = [stage for stage in facts.stages if stage.what == "trained"][-1]
    what = "signals" if _of_signals(facts) else "images"
    kind = "spiking U-Net" if facts.account.ledger.spiking else "U-Net without spikes"
    spikes = f", T = {facts.account.ledger.T} SNN time steps" if facts.account.ledger.spiking else ""
    return [
        f"# {facts.name}",
        "",
        f"A {kind} of {facts.parameters:,} parameters{spikes}, that draws {_form(facts)} like those of {data.dataset}.",
        "",
        "```sh",
        f"sddpm sample {facts.name} --count 64" + (" --out signals.npz" if what == "signals" else ""),
        "```",
        "",
        "```python",
        "from sddpm import SpikingDiffusionPipeline",
        "",
        f'pipe = SpikingDiffusionPipeline.from_pretrained("{facts.name}")',
        f"{what} = pipe(seeds=range(16), num_inference_steps=50).images",
        "```",
        "",
        "![64 samples, seeds 0 to 63, none left out](samples.png)",
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        f"| data | {data.dataset}, {data.split} split |",
        "| command | `sddpm train config.yaml --data FOLDER`, with the config beside this file |",
        f"| steps x {what} | {last.steps:,} x {train.batch_size:,} = {last.images:,} {what} |",
        f"| time | {last.seconds / 60:.0f} minutes |",
        f"| hardware | {facts.hardware} |",
        f"| seed | {train.seed} |",
        f"| released with | {facts.versions} |",
        f"| weights | {average}; convolutions in float16 |",
        f"| neuron | {getattr(model, 'neuron', 'none').upper()} |",
        "",
        *_all_stages(facts.stages),
        "## Quality",
        "",
        *_quality(facts.evaluations),
        "",
        "## Energy",
        "",
        *_energy(facts.account),
        "",
        "## Limits",
        "",
        f"It knows the {what} of {data.dataset} and nothing else, takes no text, and may draw what is none of them: "
        "look at the samples above. It was made to study spiking networks; it is not for decisions about people.",
        "",
        "## Licence",
        "",
        f"Weights: {facts.licence}. The data have their own terms.",
        "",
        "## Config",
        "",
        "```yaml",
        to_yaml(facts.config).rstrip(),
        "```",
    ]


def _all_stages(stages: Sequence[Stage]) -> list[str]:
    """What came before the training above and after it, if anything did."""
    if len(stages) < 2:
        return []
    rows = ["That training was not all. The stages, in their order:", ""]
    rows += ["| stage | network | T | data | steps | images | minutes | taught by |", "|---" * 8 + "|"]
    for stage in stages:
        numbers = (stage.steps, stage.images, round(stage.seconds / 60))
        cells = [
            f"{stage.what}: {stage.parts}" if stage.parts else stage.what,
            stage.kind,
            str(stage.T),
            stage.dataset or "",
        ]
        cells += [f"{number:,}" if number else "" for number in numbers]
        rows.append(f"| {' | '.join([*cells, stage.teacher or ''])} |")
    return [*rows, ""]


def _of_signals(facts: CardFacts) -> bool:
    return getattr(facts.config.model, "dims", 2) == 1


def _form(facts: CardFacts) -> str:
    size = facts.config.data.image_size
    if _of_signals(facts):
        return f"signals of {size} samples"
    return f"{'grey' if facts.config.data.channels == 1 else 'colour'} images of {size} x {size} pixels"


def _quality(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return ["Not measured."]
    rows = [
        "| metric | value | 95 % interval | samples | sampler | against | departs from its protocol by |",
        "|---|---|---|---|---|---|---|",
    ]
    for e in evaluations:
        interval = f"{e.interval[0]:.4g} to {e.interval[1]:.4g}" if e.interval else ""
        rows.append(
            f"| {e.metric} | {e.value:.4g} | {interval} | {e.samples:,} | {e.sampler} | {e.reference} "
            f"| {e.protocol}: {'; '.join(e.departures) or 'nothing'} |"
        )
    copies = [e for e in evaluations if e.near_copies is not None]
    if copies:
        rows += ["", f"Near copies of training images: {copies[0].near_copies:.2%} of {copies[0].samples:,} samples."]
    return rows


def _energy(account: Account) -> list[str]:
    ledger, twin = account.ledger, account.twin
    totals = ledger.totals()
    rows = [
        f"Of one evaluation: {count(totals['ac'])} accumulates, {count(totals['mac'])} multiply-accumulates. "
        f"A sample takes {ledger.evaluations_per_sample} evaluations ({ledger.solver}).",
        "",
        "| cost model | evaluation | sample | ANN twin's evaluation | saving |",
        "|---|---|---|---|---|",
    ]
    for cost in account.costs:
        rows.append(
            f"| {cost.name} | {joules(ledger.per_evaluation(cost).total)} | {joules(ledger.per_sample(cost).total)} "
            f"| {joules(twin.per_evaluation(cost).total) if twin else ''} | {percent(account.saving(cost))} |"
        )
    return rows
