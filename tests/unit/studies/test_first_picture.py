"""The picture at the top of README: its caption is what was measured, and its program draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from studies.groups.first_picture import WINNERS, Setting, drawing, shown

ROOT = Path(__file__).resolve().parents[3]
PICTURE = ROOT / "book" / "_assets" / "one-sample.png"
SMALL = Setting(each=5, width=8, depth=2, steps=6, latents=3, grid=3, shown=2)


def test_the_caption_in_the_readme_is_the_pictures_own():
    """Assert that README says, numbers included, what the program wrote into the file; the file is small."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    caption = text.split("<!-- picture -->")[1].split("<!-- /picture -->")[0]
    with Image.open(PICTURE) as picture:
        assert " ".join(caption.split()) == picture.info["Description"]
    assert PICTURE.stat().st_size < 300_000


@pytest.fixture(scope="module")
def small():
    """A network of six steps."""
    return shown(SMALL)


def test_rows_are_the_largest_predicted_changes(small):
    """Assert that the order is by predicted change, retraining unseen, and that winners are training images."""
    sizes = (small.predicted - small.samples).flatten(1).norm(dim=1)[small.order]
    assert torch.equal(sizes, sizes.sort(descending=True).values)
    assert small.winners.shape == (SMALL.shown, WINNERS, 1, 8, 8)
    assert not torch.equal(small.predicted, small.retrained)


def test_every_group_of_panels_is_named(small):
    """Assert the heads of the groups, and numbers of the caption."""
    figure = drawing(small)
    heads = [text.get_text() for text in figure.texts]
    assert heads == ["a sample", "training images that made it", "without any 0", "what changed"]
    assert "trained on 50 digits" in figure.alt
    assert "of 3 samples" in figure.alt
