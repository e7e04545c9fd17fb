import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from rlgen_cli.core.errors import UserError
from rlgen_cli.data.folder import Folder
from rlgen_cli.data.glyphs import Glyphs
from rlgen_cli.data.images import Images, split_by_content, to_channels
from rlgen_cli.data.mnist import IdxImages
from rlgen_cli.data.palette import image_palette, quantise
from tests.conftest import needs_shared, write_idx


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_splits_depend_on_content_and_not_on_order():
    images = torch.randint(0, 256, (500, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(500)
    order = torch.randperm(500)
    one = split_by_content(Images(images, labels))
    two = split_by_content(Images(images[order], labels[order]))
    doubled = split_by_content(Images(torch.cat([images, images]), torch.cat([labels, labels])))
    for a, b, c in zip(one, two, doubled, strict=True):
        assert rows(a.images) == rows(b.images) == rows(c.images)
    assert not rows(one.train.images) & rows(one.test.images)
    assert not rows(one.train.images) & rows(one.valid.images)
    assert 0.03 < len(one.test.images) / 500 < 0.18


def test_glyphs_are_labelled_repeatable_and_inked():
    splits = Glyphs("A1x", 20, 1.0).load(20, 1)
    again = Glyphs("A1x", 20, 1.0).load(20, 1)
    assert torch.equal(splits.train.images, again.train.images)
    assert splits.train.classes == ("A", "1", "x")
    assert sum(len(part.images) for part in splits) >= 60
    ink = splits.train.images.float().mean((1, 2, 3)) / 255
    assert ((ink > 0.03) & (ink < 0.5)).all()
    assert Glyphs("A", 2, 0.0).load(16, 3).train.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("arguments", [("", 1, 0.5), ("A", 0, 0.5), ("A", 1, 2.0)])
def test_bad_glyphs_are_refused(arguments):
    with pytest.raises(UserError):
        Glyphs(*arguments)


def mnist(root, threshold=None):
    return IdxImages(
        "mnist", str(root) if root else None, "http://127.0.0.1:9/nowhere", {}, list("0123456789"), threshold
    )


def test_idx_files_plain_and_gzipped(tmp_path):
    folder = write_idx(tmp_path / "idx")
    plain = mnist(folder).load(28, 1)
    assert len(plain.train.images) + len(plain.valid.images) == 30
    assert len(plain.test.images) == 30
    for file in list(folder.iterdir()):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    zipped = mnist(folder).load(28, 1)
    assert torch.equal(plain.test.images, zipped.test.images)
    assert mnist(folder).load(16, 3).test.images.shape == (30, 3, 16, 16)
    binary = mnist(folder, 100).load(28, 1).test.images
    assert torch.equal(binary == 255, plain.test.images > 100)
    assert binary.unique().tolist() == [0, 255]


def test_bad_idx_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        mnist(tmp_path / "nowhere")
    folder = write_idx(tmp_path / "idx")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="t10k-labels"):
        mnist(folder).load(28, 1)
    for rubbish in (b"", b"hello", b"\0\0\x08\x03\0\0\0\x09"):
        (folder / "t10k-labels-idx1-ubyte").write_bytes(rubbish)
        with pytest.raises(UserError, match="t10k-labels"):
            mnist(folder).load(28, 1)


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch):
    """From a server on this machine: right files are cached, a damaged one is refused and not kept."""
    import functools
    import hashlib
    import http.server
    import threading

    folder = write_idx(tmp_path / "idx")
    for file in list(folder.iterdir()):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    try:
        damaged = IdxImages("mnist", None, url, dict.fromkeys(md5, "0"), list("0123456789"), None)
        with pytest.raises(UserError, match="arrived damaged"):
            damaged.load(28, 1)
        assert not list((tmp_path / "cache").rglob("*.gz"))
        good = IdxImages("mnist", None, url, md5, list("0123456789"), None)
        assert len(good.load(28, 1).test.images) == 30
    finally:
        server.shutdown()
    assert len(good.load(28, 1).test.images) == 30, "the second time needs no network"


def test_no_network_is_said_clearly():
    with pytest.raises(UserError, match=r"could not be downloaded.*data.root"):
        mnist(None).load(28, 1)


@pytest.fixture
def pictures(tmp_path):
    """Nested, palette, RGBA, grey, 16-bit, one broken, one that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    (folder / "b" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        noise = Image.fromarray(rng.integers(0, 256, (20, 10 + i, 3), dtype=np.uint8))
        noise.save(folder / "a" / f"{i}.png")
        noise.quantize(8).save(folder / "b" / f"p{i}.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(folder / "b" / "deep" / "clear.png")
    Image.new("L", (9, 9), 200).save(folder / "b" / "grey.jpg")
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    (folder / "readme.txt").write_text("not a picture")
    return folder


def test_a_folder_of_everything(pictures, caplog):
    splits = Folder(str(pictures), "#00ff00", 0).load(16, 3)
    total = sum(len(part.images) for part in splits)
    assert total == 26
    assert splits.train.classes == ("a", "b", "b/deep")
    assert "1 of 27 images cannot be read" in caplog.text
    assert "broken.png" in caplog.text
    pixels = torch.cat([part.images for part in splits])
    green = torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1)
    assert any(torch.equal(image, green.expand(3, 16, 16)) for image in pixels)  # transparency shows the background


def test_a_folder_is_quantised(pictures):
    splits = Folder(str(pictures), "black", 6).load(16, 3)
    everything = torch.cat([part.images for part in splits]).permute(0, 2, 3, 1).reshape(-1, 3)
    assert len(everything.unique(dim=0)) <= 6


def test_bad_folders_are_named(tmp_path, pictures):
    with pytest.raises(UserError, match="no folder"):
        Folder(str(tmp_path / "nowhere"), "black", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        Folder(str(tmp_path / "empty"), "black", 0).load(16, 1)
    (tmp_path / "empty" / "x.png").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"x\.png"):
        Folder(str(tmp_path / "empty"), "black", 0).load(16, 1)
    with pytest.raises(UserError, match="no colour"):
        Folder(str(pictures), "blackish", 0)


def test_what_is_not_square_is_padded_with_its_own_border(tmp_path):
    """A drawing on paper has paper beside it, a picture with transparent parts black, unless a colour is named."""
    Image.new("L", (40, 20), 255).save(tmp_path / "paper.png")
    Image.new("RGBA", (40, 20), (255, 255, 255, 0)).save(tmp_path / "transparent.png")

    def shades(background: str) -> set[float]:
        splits = Folder(str(tmp_path), background, 0).load(8, 1)
        return {float(image.float().mean()) for part in splits for image in part.images}

    assert shades("auto") == {255.0, 0.0}
    assert shades("black") == {127.5, 0.0}
    assert shades("white") == {255.0}


def test_palettes_keep_the_background_and_few_colours():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[:, 0, :2] = 250
    images[:, 1, 7:] = 100
    palette = image_palette(images, 3)
    assert palette[0].tolist() == [0, 0, 0]
    assert sorted(palette.tolist()) == [[0, 0, 0], [0, 100, 0], [250, 0, 0]]
    assert torch.equal(quantise(images, palette), images)


def test_grey_is_luma():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert to_channels(red, 1).item() == 76  # .299 · 255
    assert to_channels(to_channels(red, 1), 3).flatten().tolist() == [76, 76, 76]


@needs_shared("mnist")
def test_the_real_mnist():
    from tests.conftest import SHARED

    splits = mnist(SHARED / "mnist").load(28, 1)
    assert len(splits.test.images) == 10_000
    assert len(splits.train.images) + len(splits.valid.images) == 60_000
    assert splits.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


@needs_shared("sprites")
def test_the_real_sprites(caplog):
    from tests.conftest import SHARED

    splits = Folder(str(SHARED / "sprites"), "black", 16).load(16, 3)
    assert sum(len(part.images) for part in splits) == 1368
    assert "cannot be read" not in caplog.text
