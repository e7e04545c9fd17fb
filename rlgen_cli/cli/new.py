"""`rlgen new`: the Python file and the YAML of a component of one's own, which work as they are. Imports no torch."""

import sys
from pathlib import Path

from rlgen_cli.config.locate import choices
from rlgen_cli.core.errors import UserError, require

KINDS = {"env": "env", "agent": "agent", "term": "reward/term"}  # and the group of each
TEMPLATES = Path(__file__).parent / "templates"
FOLDER = "mine"


def write_new(arguments: list[str]) -> None:
    """`rlgen new KIND NAME [FOLDER]`: write both files into FOLDER, and say how to use them.

    Raises:
        UserError: for another kind, a name that cannot be one, or files that are there already.
    """
    if len(arguments) not in (2, 3) or arguments[0] not in KINDS:
        raise UserError("new: takes env, agent or term, and a name, as in rlgen new term smooth.")
    kind, name = arguments[:2]
    folder = Path(arguments[2] if len(arguments) == 3 else FOLDER)
    group = KINDS[kind]
    require(name.isidentifier() and name == name.lower(), f"new {kind} {name}: must be lower case, as in my_{kind}.")
    require(name not in choices(group), f"new {kind} {name}: there is {group}={name} already; take another name.")
    taken = name in sys.stdlib_module_names or name == "rlgen_cli"
    require(not taken, f"new {kind} {name}: is the name of a Python module; take another, as in my_{name}.")
    module, config = folder / f"{name}.py", folder / group / f"{name}.yaml"
    for path in (module, config):
        require(not path.exists(), f"new {kind} {name}: {path} is there already; take another name.")
    config.parent.mkdir(parents=True, exist_ok=True)
    for path in (module, config):
        template = (TEMPLATES / f"{kind}{path.suffix}").read_text(encoding="utf-8")
        text = template.replace(f"new_{kind}", name).replace(f"New{kind.capitalize()}", camel(name))
        path.write_text(text, encoding="utf-8")
    word = f"+{group}={name}" if kind == "term" else f"{kind}={name}"
    print(f"{module}  what it does: change it to yours\n{config}  its keys, with their defaults")
    print(f"use it:    rlgen train --config-dir {folder} {word}")
    print(f'sample it: rlgen sample --config-dir {folder} run=latest "trust=[{name}]"')


def camel(name: str) -> str:
    """`my_term` as the name of a class, `MyTerm`."""
    return "".join(part.capitalize() for part in name.split("_"))
