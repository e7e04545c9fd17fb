"""What most tests need alike is made once in a process.

Hydra parses each file and each word anew whenever it composes, which is most of what many a test takes. Here what was
parsed is kept, so that a config takes less than half the time; what is made of it stays Hydra's. Melodies as a config
asks for them are kept as well.
"""

import copy
import functools
import pickle
import sys
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.default_element import InputDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, _utils, grammar_parser

from rlgen_cli.config.locate import config_folder
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.datasets.melodies import Melodies
from rlgen_cli.domains.music.encodings import MusicEncoding


def keep_what_is_made() -> None:
    """From now on, in this process."""
    _keep_melodies()
    _keep_grammar()
    _keep_words()
    _keep_files()
    _look_up_choices_where_asked()


def _keep_melodies() -> None:
    """By all that they depend on; the encoding is the asker's own."""
    load, kept = Melodies.load, dict[bytes, Splits]()

    def load_once(self: Melodies, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        key = pickle.dumps((vars(self), encoding, length, bar))
        if key not in kept:
            kept[key] = load(self, encoding, length, bar)
        return Splits(*(Sequences(part.tokens, encoding) for part in kept[key]))

    setattr(Melodies, "load", load_once)  # noqa: B010 - it is no attribute that may be assigned


def _keep_grammar() -> None:
    """Interpolations, and the loader of YAML."""
    parse, get_yaml_loader = grammar_parser.parse, _utils.get_yaml_loader
    kept = {parse: functools.cache(parse), get_yaml_loader: functools.cache(get_yaml_loader)}
    for name, module in list(sys.modules.items()):
        if name.startswith("omegaconf"):
            for key, value in list(vars(module).items()):
                if value in (parse, get_yaml_loader):
                    setattr(module, key, kept[value])


def _keep_words() -> None:
    """Overrides."""
    words, parse_rule = dict[tuple[str, str], Any](), OverridesParser.parse_rule

    def parse_rule_once(self: OverridesParser, s: str, rule_name: str) -> Any:
        if (s, rule_name) not in words:
            words[s, rule_name] = parse_rule(self, s, rule_name)
        return copy.deepcopy(words[s, rule_name])

    setattr(OverridesParser, "parse_rule", parse_rule_once)  # noqa: B010


def _keep_files() -> None:
    """Files that ship do not change while tests run; others are read anew."""
    load, embed = ConfigRepository.load_config, ConfigLoaderImpl._embed_result_config
    results = dict[tuple[str, str], ConfigResult]()

    def load_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.full_path() not in (f"file://{config_folder()}", "pkg://hydra.conf"):
            return load(self, config_path)
        key = source.full_path(), config_path
        if key not in results:
            found = load(self, config_path)
            assert found is not None
            results[key] = found
        return results[key]

    def embed_copied(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        """What is merged at the top would become a part of the config; what is put below it is copied there."""
        embedded = embed(ret, package_override)
        if embedded is ret:
            embedded = copy.copy(ret)
            embedded.config = copy.deepcopy(ret.config)
        return embedded

    setattr(ConfigRepository, "load_config", load_once)  # noqa: B010
    setattr(ConfigLoaderImpl, "_embed_result_config", staticmethod(embed_copied))  # noqa: B010


def _look_up_choices_where_asked() -> None:
    """The choices that a default may be interpolated from are gathered for each file, though few are asked for."""
    gather, resolve = defaults_list._create_interpolation_map, InputDefault._resolve_interpolation_impl

    def gathered_later(*args: Any, **kwargs: Any) -> Any:
        return functools.partial(gather, *args, **kwargs)

    def resolve_gathered(self: InputDefault, known_choices: Any, val: str | None) -> str:
        choices: DictConfig = known_choices()
        return resolve(self, choices, val)

    setattr(defaults_list, "_create_interpolation_map", gathered_later)  # noqa: B010
    setattr(InputDefault, "_resolve_interpolation_impl", resolve_gathered)  # noqa: B010
