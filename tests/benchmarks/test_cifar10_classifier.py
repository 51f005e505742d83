"""The classifier that judges samples: it learns, goes on where it was stopped, and counts what it recognises."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def classifier(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cifar10_classifier

    return cifar10_classifier


@pytest.fixture
def coloured():
    """Images of two classes, red or blue under noise, which anything learns that learns."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (384,), generator=generator)
    images = torch.randint(100, (384, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[torch.arange(384), 2 * labels] += 120
    return images, labels


def test_variations_mirror_and_move(classifier):
    images = torch.randint(1, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = classifier.varied(images, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    flips = torch.rand(16, generator=generator) < 0.5
    moves = torch.randint(9, (2, 16, 1), generator=generator)[..., 0].T.tolist()
    for image, flip, (down, right), result in zip(images, flips, moves, found, strict=True):
        expected = nn.functional.pad(image.flip(2) if flip else image, (4, 4, 4, 4))
        assert torch.equal(result, expected[:, down : down + 32, right : right + 32])


def test_normalised_images_have_the_mean_and_spread_they_should(classifier):
    grey = (255 * torch.tensor(classifier.MEAN)).round().to(torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert classifier.normalised(grey).abs().max() < 0.01
    assert torch.allclose(classifier.normalised(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten(),
                          (1 - torch.tensor(classifier.MEAN)) / torch.tensor(classifier.STD))  # fmt: skip


def test_it_learns_and_goes_on_to_the_same_weights(classifier, coloured, tmp_path, capsys):
    images, labels = coloured
    whole = classifier.train(images, labels, tmp_path / "whole", epochs=3, width=4)
    right, count = classifier.recognised(whole, images, labels)
    assert count == 384 and right > 0.95 * count

    class Stopped(Exception):
        pass

    def stop_after_two(*arguments, real=classifier.batches):
        if arguments[2] == 2:
            raise Stopped
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(classifier, "batches", stop_after_two)
        classifier.train(images, labels, tmp_path / "parts", epochs=3, width=4)
    parts = classifier.train(images, labels, tmp_path / "parts", epochs=3, width=4)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    with pytest.raises(SystemExit, match="another training"):
        classifier.train(images, labels, tmp_path / "parts", epochs=4, width=4)


@pytest.mark.slow
def test_the_command_trains_and_judges(classifier, monkeypatch, shared_dir, tmp_path, capsys):
    import numpy as np

    folder = shared_dir / "data" / "cifar10"
    images, labels = classifier.opened(str(folder), "test", 20)
    np.savez(tmp_path / "samples.npz", arr_0=images.permute(0, 2, 3, 1).numpy(), arr_1=labels.numpy())
    arguments = ["--epochs", "1", "--width", "4", "--limit", "200", "--judge", str(tmp_path / "samples.npz")]
    monkeypatch.setattr("sys.argv", ["classifier", str(folder), str(tmp_path / "out"), *arguments])
    classifier.main()
    found = json.loads((tmp_path / "out" / "classifier.json").read_text())
    assert found["test_images"] == 200 and 0 <= found["accuracy"] <= 1
    assert "of 20 (" in capsys.readouterr().out
