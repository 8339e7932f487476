"""The gallery: one file that needs nothing else, says every value and its error, and shows in a real browser."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from support.browser import visit

from sensitivity import Affine, Grid, Mixture, gallery, record
from sensitivity.recordings.gallery import _png


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two samples of 28×28 pixels, of bytes on disk with groups and a hostile name."""
    folder = tmp_path_factory.mktemp("gallery")
    data = torch.randint(0, 255, (60, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.save(folder / "images.npy", data.numpy())
    scaled = Affine(2 / 255, -1.0, (1, 28, 28))
    law = Mixture(None, scaled(data[:20]).flatten(1), 0.5)

    def score(x, sigma):
        return law.score(x.flatten(1), sigma).reshape(x.shape)

    class Anchor:
        def log_density(self, x, sigma):
            return law.log_density(x.flatten(1), sigma)

    latents = 20.0 * torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    options = {"anchor": Anchor(), "trace": "hutchinson", "probes": 2, "seed": 1}
    kept = record(score, latents, lambda x: x.flatten(1).mean(1), Grid(20.0, 0.5, 4), **options)
    names = ["<script>alert(1)</script>" if k % 2 else "dress" for k in range(60)]
    influences = kept.influence(folder / "images.npy", top_k=12, groups=names, transform=scaled, shard_rows=25)
    path = gallery(influences, folder / "images.npy", folder / "page.html", transform=scaled, count=3)
    return path, influences


def test_the_page_needs_nothing_from_elsewhere(page):
    """Assert no script, link or address but images inside the page."""
    text = page[0].read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|<iframe|@import|url\(|https?://", text)
    addresses = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert addresses
    assert all(a.startswith("data:image/png;base64,") for a in addresses)


def test_the_page_says_values_errors_groups_and_origin(page):
    """Assert the largest value with its error, both groups, the outcome and the recording's digest."""
    path, result = page
    text = path.read_text(encoding="utf-8")
    best = int(result.values[0].abs().argmax())
    value, index = float(result.values[0, best]), int(result.indices[0, best])
    assert f"Training point {index}, value {value:.3g} ±" in text
    assert "&lt;script&gt;" in text
    for piece in (
        "dress",
        "2 of 2 samples are shown",
        result.provenance["recording"],
        "bytes_read",
        "Raise it",
        "Lower it",
    ):
        assert piece in text


def test_a_sum_of_a_group_carries_the_error_of_its_sample(page):
    """Assert it as of a point: no sum is shown as exact beside a log density that is not."""
    path, result = page
    relative = (result.log_density_error + result.grid_error).reshape(2)
    assert float(relative.min()) > 0
    total = float(result.groups[0, 0])
    assert f"{total:.3g} ± {abs(total) * float(relative[0]):.2g}<" in path.read_text(encoding="utf-8")


def test_pictures_are_what_they_show():
    """Assert the pixels of a grey and of a coloured PNG, decoded by hand."""
    for picture in (torch.rand(5, 7), torch.rand(3, 5, 7)):
        content = base64.b64decode(_png(picture).split(",")[1])
        assert struct.unpack(">II", content[16:24]) == (7, 5)
        length = struct.unpack(">I", content[33:37])[0]
        lines = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8).reshape(5, -1)[:, 1:]
        wanted = picture[None] if picture.ndim == 2 else picture
        pixels = lines.reshape(5, 7, -1).transpose(2, 0, 1)
        assert np.array_equal(pixels, wanted.mul(255).round().to(torch.uint8).numpy())


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1000])
def test_a_browser_without_network_shows_every_picture(page, tmp_path, width):
    """Assert visible pictures with text alternatives, an empty console and no sideways scrolling."""
    seen = visit(page[0], tmp_path, width=width)
    assert not seen.console
    assert len(seen.images) > 6
    assert all(image["alt"] and image["natural"] == [28, 28] and min(image["box"]) > 50 for image in seen.images)
    assert seen.width <= seen.view
    assert "Where this came from" in seen.text
