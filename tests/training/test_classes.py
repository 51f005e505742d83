"""Learning classes: the labels that a step sees, those that are dropped, and what is refused."""

import gzip
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.data.open import open_configured
from sddpm.errors import UserError
from sddpm.moving.runs import pack_run, unpack_run
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train
from sddpm.training.batches import check_labels, share_of_batch, training_batches
from sddpm.training.plan import describe_run

TEN = "model.num_classes=10"


def all_batches(config, steps, rows=None):
    dataset = open_configured(config.data)
    rows = share_of_batch(config.train.batch_size, 1, 0, 1) if rows is None else rows
    return [batch for _, batch in zip(range(steps), training_batches(dataset, config, 0, rows), strict=False)]


def test_labels_are_those_of_the_images(tiny):
    """Looked up by pixels in the bundled file, read by numpy alone; most digits are unlike any other."""
    from importlib.resources import files

    with (files("sddpm.data") / "digits.npz").open("rb") as file, np.load(file) as stored:
        pixels, labels = stored["images"].reshape(-1, 64), stored["labels"]
    for batch in all_batches(tiny(TEN, "train.label_dropout=0", "train.batch_size=64"), 3):
        for image, label in zip(batch.images, batch.labels, strict=True):
            same = (np.round(image.numpy().reshape(64) / 255 * 16) == pixels).all(1)
            assert int(label) in labels[same]


def test_dropped_labels_are_binomial(tiny):
    """n draws with p = 0.25 lie within 4 standard deviations of n p; the others are the labels without dropout."""
    options = ("train.batch_size=200", "train.steps=40")
    dropped = torch.stack([b.labels for b in all_batches(tiny(TEN, "train.label_dropout=0.25", *options), 40)])
    whole = torch.stack([b.labels for b in all_batches(tiny(TEN, "train.label_dropout=0", *options), 40)])
    n, p = dropped.numel(), 0.25
    assert abs((dropped == 10).sum() - n * p) < 4 * (n * p * (1 - p)) ** 0.5
    assert torch.equal(dropped[dropped != 10], whole[dropped != 10]) and whole.max() == 9
    per_step = (dropped == 10).float().sum(1)
    assert per_step.var() == pytest.approx(200 * p * (1 - p), rel=0.8)  # binomial in each step too, not the same mask
    everything = torch.cat([b.labels for b in all_batches(tiny(TEN, "train.label_dropout=1"), 3)])
    assert (everything == 10).all()


def test_classes_change_no_other_draw(tiny):
    for with_classes, without in zip(all_batches(tiny(TEN), 3), all_batches(tiny(), 3), strict=True):
        assert without.labels is None
        for name in ("images", "noise", "t"):
            assert torch.equal(getattr(with_classes, name), getattr(without, name))


def test_processes_and_micro_batches_share_the_labels(tiny):
    config = tiny(TEN, "train.batch_size=16")
    (whole,) = all_batches(config, 1)
    parts = [all_batches(config, 1, share_of_batch(16, 2, rank, 2))[0] for rank in (0, 1)]
    micro = [piece.labels for i in (0, 1) for piece in (parts[0].split(2)[i], parts[1].split(2)[i])]
    assert torch.equal(torch.cat(micro), whole.labels)


def test_a_run_learns_classes_and_keeps_their_names(tiny, tmp_path):
    folders = tmp_path / "images"
    for name, level in (("dark", 20), ("light", 230)):
        (folders / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (8, 8), level).save(folders / name / f"{i}.png")
    config = tiny("data.dataset=folder", f"data.path={json.dumps(str(folders))}", "model.num_classes=2",
                  "train.label_dropout=0.3", "train.sample_every=6", "train.sample_count=4")  # fmt: skip
    train(config, tmp_path / "run", progress=False)
    pipeline = load_pipeline(tmp_path / "run")
    assert pipeline.class_names == ["dark", "light"] and pipeline.num_classes == 2
    assert pipeline.unet.class_embedding.weight.abs().sum(1).gt(0).all()  # both were seen, and none
    assert (tmp_path / "run" / "samples" / "step-0000006.png").is_file()
    pack_run(tmp_path / "run", tmp_path / "packed")
    unpack_run(tmp_path / "packed", tmp_path / "elsewhere")
    assert load_pipeline(tmp_path / "elsewhere").class_names == ["dark", "light"]


def test_the_twin_without_spikes_learns_classes(tiny_settings, tmp_path):
    settings = [setting for setting in tiny_settings if not setting.startswith("model.T=")]
    config = load_config("digits", [*settings, "model.kind=ann", TEN, "train.steps=2"])
    train(config, tmp_path / "run", progress=False)
    embedding = load_pipeline(tmp_path / "run").unet.unet.class_embedding
    assert embedding.weight.shape == (11, 32) and embedding.weight.abs().sum() > 0


def test_data_that_cannot_teach_classes(tiny, tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), 80 * i).save(tmp_path / f"{i}.png")
    unlabelled = tiny("data.dataset=folder", f"data.path={json.dumps(str(tmp_path))}", TEN)
    with pytest.raises(UserError, match="has no labels: a model of 10 classes cannot be learned"):
        train(unlabelled, tmp_path / "run", progress=False)
    with pytest.raises(UserError, match=r"has the classes 0 to 9: model\.num_classes=9 is too few"):
        describe_run(tiny("model.num_classes=9"))
    assert not (tmp_path / "run").exists()
    check_labels(open_dataset(tmp_path), None)


def test_real_labels(shared_dir):
    """Read by hand: 8 bytes of header, then a byte a label; the first three are well known. Of CIFAR-10 a list, and the
    classes in the order in which they were published."""
    folder = shared_dir / "data" / "fashion-mnist"
    dataset = open_dataset("fashion-mnist", folder, limit=500)
    raw = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:508]
    assert dataset.labels.tolist() == list(raw)
    assert [dataset.class_names[i] for i in dataset.labels[:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]
    cifar = open_dataset("cifar10", shared_dir / "data" / "cifar10", split="test", limit=100)
    assert " ".join(cifar.class_names) == "airplane automobile bird cat deer dog frog horse ship truck"
    with zipfile.ZipFile(shared_dir / "data" / "cifar10" / "test.zip") as archive:
        listed = json.loads(archive.read("dataset.json"))["labels"][:100]  # [name, label], in the order of the images
    assert cifar.labels.tolist() == [label for _, label in listed]
