"""Hydra parses each file and each word anew whenever it composes, which is most of what many a test takes. Here what was
parsed is kept, so that a config takes 0.2 s in place of 0.4 s; what is made of it stays Hydra's."""

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, _utils, grammar_parser

from rlgen_cli.config.locate import config_folder


def keep_what_is_parsed() -> None:
    """From now on, in this process."""
    parse, get_yaml_loader = grammar_parser.parse, _utils.get_yaml_loader
    kept = {parse: functools.cache(parse), get_yaml_loader: functools.cache(get_yaml_loader)}
    for name, module in list(sys.modules.items()):
        if name.startswith("omegaconf"):
            for key, value in list(vars(module).items()):
                if value in (parse, get_yaml_loader):
                    setattr(module, key, kept[value])
    words, parse_rule, read = dict[tuple[str, str], Any](), OverridesParser.parse_rule, OmegaConf.load

    def parse_rule_once(self: OverridesParser, s: str, rule_name: str) -> Any:
        if (s, rule_name) not in words:
            words[s, rule_name] = parse_rule(self, s, rule_name)
        return copy.deepcopy(words[s, rule_name])

    def load_once(file_: Any) -> Any:
        """A file that ships does not change while tests run; others are read anew."""
        path = Path(str(getattr(file_, "name", file_))).resolve()
        return OmegaConf.create(content(path)) if path.is_relative_to(config_folder()) else read(file_)

    setattr(OverridesParser, "parse_rule", parse_rule_once)  # noqa: B010 - it is no attribute that may be assigned
    setattr(OmegaConf, "load", staticmethod(load_once))  # noqa: B010


@functools.cache
def content(path: Path) -> Any:
    """What a YAML holds, as plain values."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_utils.get_yaml_loader()) or {}
