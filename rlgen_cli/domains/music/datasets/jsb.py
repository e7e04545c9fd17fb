"""Bach's chorales as token sequences, from the JSON of the JSB-Chorales-dataset."""

from pathlib import Path

from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music.datasets.chorale_file import read_chorales
from rlgen_cli.domains.music.datasets.windows import encode_splits
from rlgen_cli.domains.music.encodings import MusicEncoding


class Chorales:
    """The file's own splits. An encoding of one voice has the soprano.

    Args:
        tonic, transpose: see windows.encode_splits.
    """

    def __init__(self, path: str, tonic: int | None, transpose: list[int]) -> None:
        self.path, self.tonic, self.transpose = Path(path), tonic, transpose

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        found = read_chorales(self.path)
        splits = (found["train"], found["valid"], found["test"])
        return encode_splits(splits, encoding, length, bar, self.tonic, self.transpose)
