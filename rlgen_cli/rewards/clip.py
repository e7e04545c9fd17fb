"""How well a picture fits a text, by a CLIP model of the transformers library (the extra `clip`)."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.specs import EnvSpec, View

log = logging.getLogger(__name__)

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # published with CLIP


class Clip:
    """Cosine similarity of picture and prompt where a CLIP model puts both (Radford et al. 2021), from −1 to 1.

    Args:
        model: a folder with config.json, model.safetensors and the tokenizer's files, or a name on the Hugging Face
            hub. prompt: what the picture shall show; beyond what the model reads it is cut, with a warning.

    Raises:
        UserError: without transformers, for an empty prompt, and for a model that cannot be had or is no CLIP.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()
    downloads = ("model",)

    def __init__(self, *, spec: EnvSpec, device: torch.device, model: str, prompt: str) -> None:
        channels = spec.picture().channels
        require(channels in (1, 3), f"_target_: CLIP takes grey or RGB pictures, and these have {channels} channels.")
        require(bool(prompt.strip()), "prompt: is empty; say what the picture shall show.")
        net, prompt_features, scale = _load(model, prompt)
        self.side = int(net.config.vision_config.image_size)
        self.vision = net.vision_model.to(device)  # the half for text is not needed any more
        self.projection = net.visual_projection.to(device)
        self.prompt_features = prompt_features.to(device)  # [D], of length 1
        self.mean, self.std = scale.to(device)  # [3, 1, 1] each

    def __call__(self, view: View) -> Tensor:
        pooled = self.vision(pixel_values=self.pixels(view.sample)).pooler_output
        return normalize(self.projection(pooled), dim=1) @ self.prompt_features

    def pixels(self, sample: Tensor) -> Tensor:
        """What the model takes of pictures [N, 1 or 3, H, W] in [0, 1]: [N, 3, side, side]."""
        size = (self.side, self.side)
        large = interpolate(sample.expand(-1, 3, -1, -1), size, mode="bicubic", antialias=True)
        return (large.clamp(0, 1) - self.mean) / self.std  # bicubic overshoots at edges


def _load(source: str, prompt: str) -> tuple[Any, Tensor, Tensor]:
    """The frozen model, the prompt's features [D] of length 1, and mean and deviation of its pictures [2, 3, 1, 1]."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise UserError("_target_: needs transformers: pip install 'rlgen[clip]'.") from None
    local = Path(source).is_dir()
    named = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source)
    require(local or bool(named), f"model: there is no folder {source}; name one, or owner/model of the hub.")
    try:
        with _quiet(local):
            net, tokenizer, scale = _read(source, local)
            return net, _features(net, tokenizer, prompt), scale
    except Exception as error:  # a foreign loader on a foreign file: no list of what it may raise is complete
        reason = " ".join(str(error).split())[:200].rstrip(". ")
        if local:
            wrong = f"the folder {source} holds no CLIP model that can be read ({reason})"
            right = "it must have config.json, model.safetensors (no pickle) and the tokenizer's files"
        else:
            wrong = f"there is no folder {source}, and the Hugging Face hub gave no CLIP model of that name ({reason})"
            right = "name a folder, or owner/model of one that has safetensors"
        raise UserError(f"model: {wrong}; {right}.") from None


def _read(source: str, local: bool) -> tuple[Any, Any, Tensor]:
    """Model, tokenizer, mean and deviation. The weights are safetensors, since a pickle could run code.

    Raises:
        ValueError: where the library would go on with random weights or an empty vocabulary.
    """
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.image_processing_utils import BaseImageProcessor

    net, report = CLIPModel.from_pretrained(
        source, use_safetensors=True, local_files_only=local, dtype=torch.float32, output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    unread = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if unread:
        raise ValueError(f"{len(unread)} weights are missing or of another size, as {min(unread)}")
    tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=local)
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ValueError("its tokenizer's files are missing")
    try:
        processor = BaseImageProcessor.get_image_processor_dict(source, local_files_only=local)[0]
    except OSError:  # there is none
        processor = {}
    scale = torch.tensor([processor.get("image_mean", MEAN), processor.get("image_std", STD)]).view(2, 3, 1, 1)
    return net.eval().requires_grad_(False), tokenizer, scale


@torch.no_grad()
def _features(net: Any, tokenizer: Any, prompt: str) -> Tensor:
    """Where the model puts the prompt, [D] of length 1."""
    most, length = net.config.text_config.max_position_embeddings, len(tokenizer(prompt)["input_ids"])
    tokens = tokenizer(prompt, truncation=True, max_length=most, return_tensors="pt")
    if length > most:
        read = tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True).strip()
        log.warning("prompt: has %d tokens, and the model reads %d; it is cut after «%s».", length, most, read)
    pooled = net.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
    return normalize(net.text_projection(pooled), dim=1)[0]


@contextmanager
def _quiet(local: bool) -> Iterator[None]:
    """Keeps transformers' reports away, since what is wrong is said in one sentence; its bars show downloads alone."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    if local:
        theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
