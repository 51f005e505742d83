import math

import numpy as np
import pytest
import torch

from sddpm.errors import UserError
from sddpm.figures.grid import denoising_strip, image_grid, side_by_side


def numbered(count, channels=1, size=4):
    """Images of one value each: 10, 20, 30, ..."""
    values = torch.arange(1, count + 1, dtype=torch.uint8) * 10
    return values.reshape(-1, 1, 1, 1).expand(-1, channels, size, size)


def test_every_pixel_is_where_it_belongs():
    grid = np.asarray(image_grid(numbered(5), columns=3, scale=2, padding=1))
    assert grid.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    expected = np.full_like(grid, 255)
    for i in range(5):
        y, x = 1 + i // 3 * 9, 1 + i % 3 * 9
        expected[y : y + 8, x : x + 8] = 10 * (i + 1)
    assert np.array_equal(grid, expected)


def test_colours_and_shape_of_one_image():
    image = torch.randint(0, 256, (1, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grid = np.asarray(image_grid(image, padding=0))
    assert np.array_equal(grid, image[0].permute(1, 2, 0).numpy())


def test_square_unless_said_and_legible_when_asked():
    assert image_grid(numbered(10), padding=0).size == (16, 12)
    assert image_grid(numbered(1), scale=None, padding=0).size == (256, 256)
    assert image_grid(numbered(1, size=64), scale=None, padding=0).size == (256, 256)


def test_panels_stand_side_by_side_under_titles():
    left, right = numbered(4), numbered(4) + 100
    picture = side_by_side([("a", left), ("a title longer than its grid", right)], columns=2, scale=2)
    pixels = np.asarray(picture)
    for panel in (left, right):
        grid = np.asarray(image_grid(panel, 2, 2))
        places = [
            x
            for x in range(pixels.shape[1] - grid.shape[1] + 1)
            if np.array_equal(pixels[26 : 26 + grid.shape[0], x : x + grid.shape[1]], grid)
        ]
        assert len(places) == 1
    assert (pixels[:26] < 128).any()


def test_a_strip_shows_both_rows_of_every_sample_in_order_of_time():
    x_t = torch.arange(12, dtype=torch.uint8).reshape(3, 4, 1, 1, 1).expand(3, 4, 1, 6, 6)[:, :2] * 10
    x0 = x_t + 100
    pixels = np.asarray(denoising_strip(x_t, x0, [999, 500, 1], scale=8))
    rows = torch.stack([x_t[:, 0], x0[:, 0], x_t[:, 1], x0[:, 1]]).flatten(0, 1)
    grid = np.asarray(image_grid(rows, 3, 8))
    left = pixels.shape[1] - grid.shape[1] - 6
    assert np.array_equal(pixels[26 : 26 + grid.shape[0], left : left + grid.shape[1]], grid)
    assert (pixels[:26] < 128).any() and (pixels[:, : left - 1] < 128).any()


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 1, 2, 2), numbered(1)[0], numbered(3)[:0], numbered(2, channels=2), numbered(2, channels=4)],
)
def test_what_is_no_image_is_refused(images):
    with pytest.raises(UserError):
        image_grid(images)


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64, 200, 300])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 16, 64])
def test_small_grids_are_large_enough_to_be_seen(size, count):
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8)
    grid = image_grid(images, scale=None)
    columns = math.ceil(math.sqrt(count))
    scale, rest = divmod(grid.width - 2 - 2 * columns, columns * size)
    assert rest == 0
    assert grid.width >= 256 and size * scale >= 32
    narrower = columns * (size * (scale - 1) + 2) + 2
    assert scale == 1 or narrower < 256 or size * (scale - 1) < 32
    first = np.asarray(grid)[2 : 2 + size * scale : scale, 2 : 2 + size * scale : scale, 0]
    assert np.array_equal(first, images[0, 0].numpy())
