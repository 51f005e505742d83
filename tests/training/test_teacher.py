"""Distillation: what a student pays for, who may teach, and a converted network that its source teaches."""

import json

import pytest
import torch
from torch import nn

from sddpm.errors import UserError
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train
from sddpm.training.batches import Batch
from sddpm.training.history import stages_of
from sddpm.training.objective import make_loss


class Answer(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x_t, t, return_dict=True):
        return (self.scale * x_t,)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randn(4, 3, 4, 4, generator=generator), torch.tensor([1, 10, 500, 999]))


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny):
    """A run whose model may teach."""
    folder = tmp_path_factory.mktemp("teacher")
    train(tiny("train.steps=2"), folder / "run", progress=False)
    return folder / "run"


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("gamma", ["null", "2"])
def test_the_loss_is_shared_between_teacher_and_data(tiny, batch, share, gamma):
    objective = ("diffusion.prediction_type=epsilon", f"diffusion.min_snr_gamma={gamma}")
    config = tiny("train.teacher=x", f"train.teacher_weight={share}", *objective)
    seen = []

    def teacher(x_t, t, labels):
        seen.append((x_t, t, labels))
        return 0.5 * x_t

    loss = make_loss(config, torch.device("cpu"), teacher)(Answer(0.3), batch)
    ((x_t, t, labels),) = seen
    assert torch.equal(t, batch.t) and labels == {}
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[batch.t]
    weight = torch.ones(4).double() if gamma == "null" else (kept / (1 - kept)).clamp(max=2) / (kept / (1 - kept))
    distance = (weight * (0.2 * x_t.double()).square().flatten(1).mean(1)).mean()
    alone = make_loss(tiny(*objective), torch.device("cpu"))(Answer(0.3), batch)
    assert loss.error.item() == alone.error.item() == alone.total.item()  # what is reported stays the data's
    expected = share * distance.item() + (1 - share) * alone.total.item()
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


def test_a_student_that_is_its_teacher_learns_nothing(tiny, taught, tmp_path):
    """In evaluation mode the two are one function, so a run that starts there has only its batch norms to learn from:
    with one step at a learning rate of nothing, the weights stay the teacher's."""
    config = tiny("train.steps=1", f"train.teacher={json.dumps(str(taught))}", "train.lr=1e-30", "train.ema_decay=0")
    train(config, tmp_path / "run", init_from=taught, progress=False)
    before, after = (load_pipeline(path).unet.state_dict() for path in (taught, tmp_path / "run"))
    assert all(
        torch.equal(before[name], after[name]) for name in before if "running" not in name and "num_b" not in name
    )


def test_a_student_comes_closer_to_its_teacher(tiny, taught, tmp_path):
    """Sixty steps of distillation from another start: the distance to the teacher's answers falls by half."""
    x, t = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) * 30
    teacher = load_pipeline(taught).unet.eval()
    torch.manual_seed(0)
    torch.nn.init.xavier_uniform_(teacher.readout.conv.weight)  # it starts near zero, where there is little to learn
    pipe = load_pipeline(taught)
    pipe.unet.load_state_dict(teacher.state_dict())
    pipe.save_pretrained(tmp_path / "teacher")
    options = ("train.seed=1", "train.lr=3e-3", "train.ema_decay=0", "train.batch_size=32", "train.log_every=100")
    distances = []
    for steps in (1, 60):
        config = tiny(f"train.steps={steps}", f"train.teacher={json.dumps(str(tmp_path / 'teacher'))}", *options)
        train(config, tmp_path / f"run{steps}", progress=False)
        with torch.no_grad():
            answers = [unet(x, t).sample for unet in (teacher, load_pipeline(tmp_path / f"run{steps}").unet.eval())]
        distances.append((answers[0] - answers[1]).square().mean().item())
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("diffusion.prediction_type=epsilon", "prediction_type = v_prediction, here epsilon"),
        ("data.image_size=16", "sample_size = 8, here 16"),
        ("model.num_classes=10", "num_classes = None, here 10"),
        ("diffusion.beta_end=0.03", "another noise schedule"),
    ],
)
def test_others_may_not_teach(tiny, taught, tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        train(tiny(f"train.teacher={json.dumps(str(taught))}", override), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_converted_network_goes_on_learning_from_its_source(sddpm, tmp_path):
    quantized = [
        "model.kind=quantized", "data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]",
        "model.num_res_blocks=1", "train.batch_size=8", "train.steps=3", "train.sample_every=0",
        "train.tensorboard=false", "train.precision=float32",
    ]  # fmt: skip
    train(load_config("digits", quantized), tmp_path / "ann", progress=False)
    assert sddpm("convert-ann", "ann", "spikes", "--T", 4)[0] == 0
    config, source = load_config(tmp_path / "spikes" / "config.yaml"), load_pipeline(tmp_path / "spikes").unet.config
    assert config.model.T == source["T"] == 4 and config.model.v_threshold == source["v_threshold"]
    assert (config.model.kind, config.model.v_reset, config.model.initial_charge) == ("spiking", None, 0.5)
    options = ("--set", "train.teacher=ann", "--set", "train.steps=2")
    code, _, err = sddpm("train", "spikes/config.yaml", "--init-from", "spikes", *options, "--out", "run")
    assert code == 0 and "note: this network differs" not in err, err
    assert load_pipeline(tmp_path / "run").unet.config["v_threshold"] == source["v_threshold"]
    stages = [(s.what, s.kind, s.T, s.images, s.teacher) for s in stages_of(tmp_path / "run")]
    assert stages == [
        ("trained", "quantized", 1, 24, None),
        ("converted", "spiking", 4, 0, None),
        ("trained", "spiking", 4, 16, "ann"),
    ]
    assert sddpm("convert-ann", "ann", "other", "--T", 0)[0] == 2
