"""Wrong behaviours of the emulated card and of its driver, as data; a test must notice each (./dev mutants).

A mutation is one piece of text in one file and what stands there instead. It must occur exactly once, which
tests/house/test_mutations.py asks of the tree as it is, so that the list cannot rot.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """name: as on the command line. sheet: what the 82599 datasheet says, or the driver promises, and the mutant does
    not do. file: below ixroute/."""

    name: str
    sheet: str
    file: str
    old: str
    new: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0]

    def apply(self, text: str) -> str:
        """The file's text as the mutant has it. ValueError when the mutation does not fit the file any more."""
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: its text stands {found} times in ixroute/{self.file}, not once")
        return text.replace(self.old, self.new)


def mutations() -> tuple[Mutation, ...]:
    """The emulator's first, then the driver's."""
    from mutations.of_driver import DRIVER
    from mutations.of_emulator import EMULATOR

    return (*EMULATOR, *DRIVER)
