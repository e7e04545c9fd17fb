"""Where the YAMLs lie. Imports nothing heavy: help, lists and completion need no torch."""

from pathlib import Path


def config_folder() -> Path:
    """The YAMLs: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def choices(group: str) -> list[str]:
    """What a config group offers, by name."""
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def takes_component(env: str, group: str) -> bool:
    """False for a component that only other environments take; true for whatever is no such component."""
    takers = [
        name for name in choices("env") if f"/{group}@{group}" in (config_folder() / "env" / f"{name}.yaml").read_text()
    ]
    return not takers or env in takers
