"""Small faults in the core: mutmut puts all in place, and a variable says which is active."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coverage import Coverage
from mutmut.mutation.file_mutation import mutate_file_contents

# The core; the tests of each folder, which are tried first; and the others that may find a fault.
CORE = {
    "pooling/actvec/pooling": ("tests/pooling", ("tests/server/service",)),
    "server/actvec/server/engine": ("tests/server/engine", ("tests/server/service",)),
    "server/actvec/server/means": ("tests/server/means", ("tests/server/service",)),
    "server/actvec/server/jobs": ("tests/server/jobs", ("tests/server/service",)),
    "server/actvec/server/extraction": ("tests/server/extraction", ("tests/server/service",)),
    "client/actvec/client/bulk": ("tests/client/bulk", ("tests/client/cli", "tests/client/stored")),
}

SOUND = "__mutmut_orig"


@dataclass(frozen=True)
class Mutant:
    """A small fault.

    Attributes:
        name: By which mutmut knows it.
        folder: Of the core.
        path: Its file, from the root of the project.
        sound: The function without it.
        faulty: The function with it.
    """

    name: str
    folder: str
    path: str
    sound: str
    faulty: str

    @property
    def module(self) -> str:
        """Its module."""
        return self.name.rpartition(".")[0]

    @property
    def function(self) -> str:
        """The function that is sound, by the name that it has in the file with the faults."""
        return self.name.rpartition("__mutmut_")[0] + SOUND

    @cached_property
    def lines(self) -> set[int]:
        """Which lines of the sound function it changes; its first is 0."""
        changes = difflib.SequenceMatcher(None, *self._both(), autojunk=False).get_opcodes()
        return {
            line
            for kind, first, end, _, _ in changes
            for line in range(first, max(end, first + 1))
            if kind != "equal"
        }

    @cached_property
    def difference(self) -> str:
        """What it changes."""
        lines = list(difflib.unified_diff(*self._both(), lineterm="", n=0))
        return "\n".join(line for line in lines[2:] if not line.startswith("@@"))

    def _both(self) -> tuple[list[str], list[str]]:
        """The lines of both functions, as if they had one name."""
        faulty = self.faulty.replace(self.name.rpartition(".")[2], self.function.rpartition(".")[2])
        return self.sound.splitlines(), faulty.splitlines()


class Functions:
    """The sound functions of the files with faults, and the lines of them that run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # By file: the name, the first and the last line of each.
        self._spans: dict[str, list[tuple[str, int, int]]] = {}

    def add(self, path: str, spans: Iterable[tuple[str, int, int]]) -> None:
        """Add those of a file."""
        self._spans[path] = list(spans)

    def coverage(self) -> Coverage:
        """What counts their lines."""
        return Coverage(data_file=None, include=[str(self._root / path) for path in self._spans])

    def lines(self, coverage: Coverage) -> dict[tuple[str, int], list[str]]:
        """The contexts in which their lines ran, by function, and by line from its first."""
        data = coverage.get_data()
        return {
            (name, line - first): contexts
            for path, spans in self._spans.items()
            for line, contexts in data.contexts_by_lineno(str(self._root / path)).items()
            for name, first, last in spans
            if first <= line <= last
        }


def plant(root: Path, kept: Path) -> tuple[list[Mutant], Functions]:
    """Put all faults into a copy of the project.

    Args:
        root: The copy.
        kept: A folder to keep them in: to make them takes longer than to try some.

    Returns:
        The faults, and the functions without them.
    """
    mutants: list[Mutant] = []
    functions = Functions(root)
    kept.mkdir(parents=True, exist_ok=True)
    for folder in CORE:
        for file in sorted((root / folder).rglob("*.py")):
            path = str(file.relative_to(root))
            text = file.read_text()
            made = kept / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
            if not made.exists():
                mutated = mutate_file_contents(path, text)
                spans = {n: (s.start, s.end) for n, s in mutated.line_span_by_function_name.items()}
                made.write_text(json.dumps([mutated.code, list(mutated.mutant_names), spans]))
            code, names, spans = json.loads(made.read_text())
            file.write_text(code)
            lines = code.splitlines()
            parts = {name: "\n".join(lines[a - 1 : b]) for name, (a, b) in spans.items()}
            module = path.partition("/")[2].removesuffix(".py").removesuffix("/__init__")
            module = module.replace("/", ".")
            for name in names:
                sound = parts[name.rpartition("__mutmut_")[0] + SOUND]
                mutants.append(Mutant(f"{module}.{name}", folder, path, sound, parts[name]))
            sounds = [(n, *span) for n, span in spans.items() if n.endswith(SOUND)]
            functions.add(path, ((f"{module}.{name}", a, b) for name, a, b in sounds))
    return mutants, functions
