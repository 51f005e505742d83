"""A classifier for CIFAR-10, to measure which class samples show: a small ResNet (He et al., arXiv 1512.03385).

    python benchmarks/cifar10_classifier.py CIFAR10_FOLDER OUT [--epochs 12] [--width 32]
    python benchmarks/cifar10_classifier.py CIFAR10_FOLDER OUT --judge FILE.npz ...

Trains on the training images with flips and shifts, one cycle of the learning rate (Smith & Topin, arXiv 1708.07120),
in bf16; writes OUT/classifier.pt and OUT/classifier.json, the share of correctly classified test images. A stopped
training continues from the last epoch. With --judge: prints how many samples of each .npz (arr_0, uint8 [N, 32, 32, 3],
and their classes in arr_1) are classified as their class.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sddpm.data import ImageDataset, open_dataset
from sddpm.files import atomic_path

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of the training images
BATCH, RATE, SHIFT = 128, 0.01, 4


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        plain = stride == 1 and channels_in == channels
        self.past = nn.Identity() if plain else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.past(x))


def resnet(width: int = 32) -> nn.Module:
    """Three levels of `width`, twice and four times as many channels, one block each: uint8-valued float images
    [B, 3, 32, 32], normalised -> [B, 10]."""
    blocks = [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)]
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)]
    return nn.Sequential(*stem, *blocks, *head).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def normalised(images: Tensor) -> Tensor:
    """uint8 [B, 3, 32, 32] -> float, each channel with mean 0 and deviation 1 over the training images."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored, each shifted by up to 4 pixels in both directions, padded with black."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (SHIFT,) * 4)
    size, moves = images.shape[-1], torch.randint(2 * SHIFT + 1, (2, len(images), 1), generator=generator)
    rows, columns = (move + torch.arange(size) for move in moves)
    return padded[torch.arange(len(images))[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def predicted(network: nn.Module, images: Tensor) -> Tensor:
    """The class of each of uint8 images [N, 3, 32, 32]: LongTensor [N]."""
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.cat([network(normalised(part)).float().argmax(1) for part in images.split(500)])


def recognised(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[int, int]:
    """The number of images classified as their class, and the number of images."""
    return int((predicted(network, images) == labels).sum()), len(labels)


def batches(images: Tensor, labels: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
        yield normalised(varied(images[chosen], generator)), labels[chosen]


def train(images: Tensor, labels: Tensor, out: Path, epochs: int, width: int) -> nn.Module:
    """Train a classifier of uint8 images [N, 3, 32, 32], continuing from the checkpoint that every epoch writes to
    OUT."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = resnet(width)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    each = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * each, pct_start=0.2)
    parts, first, state = (network, optimizer, schedule), 0, out / "classifier-state.pt"
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        if saved["settings"] != [epochs, width, len(images)]:
            raise SystemExit(
                f"{state} is from another training, with other epochs, width or images: choose another OUT"
            )
        first = saved["epoch"]
        for part, values in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(values)
    for epoch in range(first, epochs):
        network.train()
        losses = []
        for x, y in batches(images, labels, epoch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(network(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        print(f"epoch {epoch + 1} of {epochs}: loss {torch.stack(losses).mean():.3f}", flush=True)
        saved = {"epoch": epoch + 1, "settings": [epochs, width, len(images)]}
        with atomic_path(state) as temporary:
            torch.save(saved | {"parts": [part.state_dict() for part in parts]}, temporary)
    return network


def load_classifier(out: Path) -> nn.Module:
    """Load the classifier that `main` wrote to OUT."""
    saved = torch.load(out / "classifier.pt", weights_only=True)
    network = resnet(saved["width"])
    network.load_state_dict(saved["weights"])
    return network


def opened(folder: str, split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, 32, 32] and classes of CIFAR-10."""
    dataset: ImageDataset = open_dataset("cifar10", folder, split, image_size=32, channels=3, limit=limit)
    assert dataset.labels is not None
    return dataset.gather(range(len(dataset))), dataset.labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=32, help="channels of the first level")
    parser.add_argument("--limit", type=int, help="use only so many images of each split")
    parser.add_argument("--judge", type=Path, nargs="+", default=[], metavar="FILE.npz")
    args = parser.parse_args()
    if not (args.out / "classifier.json").is_file():
        network = train(*opened(args.folder, "train", args.limit), args.out, args.epochs, args.width)
        with atomic_path(args.out / "classifier.pt") as temporary:
            torch.save({"width": args.width, "weights": network.state_dict()}, temporary)
        right, count = recognised(network, *opened(args.folder, "test", args.limit))
        with atomic_path(args.out / "classifier.json") as temporary:
            temporary.write_text(json.dumps({"right": right, "test_images": count, "accuracy": right / count}) + "\n")
    print((args.out / "classifier.json").read_text(), end="")
    for file in args.judge:
        with np.load(file) as stored:
            images, labels = torch.from_numpy(stored["arr_0"]).permute(0, 3, 1, 2), torch.from_numpy(stored["arr_1"])
        right, count = recognised(load_classifier(args.out), images, labels)
        print(f"{file}: {right} of {count} ({100 * right / count:.1f} %)")


if __name__ == "__main__":
    main()
