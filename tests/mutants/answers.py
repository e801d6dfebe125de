"""What became of each fault, in a file that grows with each answer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.faults import Mutant


@dataclass(frozen=True)
class Answer:
    """What became of a fault.

    Attributes:
        mutant: The name of the fault.
        difference: What it changes.
        found: The test that fails with it, or None if it survived.
        wide: Whether it was tried against the slow tests too.
    """

    mutant: str
    difference: str
    found: str | None
    wide: bool


class Answers:
    """The answers so far; of several for one fault, the last one counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._known = {answer.mutant: answer for answer in (Answer(**json.loads(x)) for x in lines)}

    def of(self, mutant: Mutant) -> Answer | None:
        """The answer for a fault, or None if there is none, or its function has changed since."""
        answer = self._known.get(mutant.name)
        return answer if answer and answer.difference == mutant.difference else None

    def settled(self, mutant: Mutant, *, wide: bool) -> bool:
        """Whether there is no need to try it against the quick tests, or the slow ones."""
        answer = self.of(mutant)
        return answer is not None and (answer.found is not None or answer.wide >= wide)

    def add(self, mutant: Mutant, found: str | None, *, wide: bool) -> None:
        """Write an answer down."""
        answer = Answer(mutant.name, mutant.difference, found, wide)
        self._known[mutant.name] = answer
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(f"{json.dumps(asdict(answer))}\n")

    def forget_survivors(self) -> None:
        """Have those tried again that no test has found."""
        self._known = {name: answer for name, answer in self._known.items() if answer.found}

    def survivors(self, sample: Sequence[Mutant]) -> list[Mutant]:
        """Those of a sample that were tried against all tests, and survived."""
        return [m for m in sample if self.settled(m, wide=True) and not self._known[m.name].found]
