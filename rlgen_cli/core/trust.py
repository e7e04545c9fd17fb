"""What the command line allows to run code."""


class Trust(frozenset[str]):
    """Modules and files that may run code, as the command line's `trust` names them. No value of a config is one, so
    that a file cannot grant it."""

    def allows(self, name: str) -> bool:
        """Whether a class, a function (`module:function`), a module or a file is one of them, or lies in one."""
        return any(name == allowed or name.startswith((f"{allowed}.", f"{allowed}:")) for allowed in self)
