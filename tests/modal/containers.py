"""Workers as Modal would run them: containers on one volume, each with its own disk."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actvec.modal.sharding import ShardRunner
from actvec.modal.volume import Site
from actvec.modal.worker import Worker
from actvec.server.config import Limits
from actvec.server.engine.packed import Engine
from actvec.server.means.store import MeanStore
from actvec.server.model.loading import LoadedModel
from tests.volume import FolderVolume

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1760)]
# A commit after about every document.
LIMITS = Limits(commit_seconds=0.0, step_tokens=256)


class Containers:
    """Workers on one volume; `map` gives each shard to another, or all to a single one."""

    def __init__(self, root: Path, engine: Engine, loaded: LoadedModel) -> None:
        self.root = root
        self.committed = root / "committed"
        self.attempts: Counter[str] = Counter()
        self.on_start: Callable[[str], object] = lambda _shard: None
        self._engine = engine
        self._loaded = loaded
        self._machines = 0
        self._warm: ShardRunner | None = None
        # A failed document belongs to one shard, and the end reports it.
        self.corpus("bridges.jsonl", [*TEXTS[:5], " ", *TEXTS[6:]])

    def corpus(self, name: str, texts: Sequence[str]) -> None:
        """Put a corpus on the volume, or replace it."""
        path = self.committed / "corpora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(texts)]
        path.write_text("\n".join(lines))

    def site(self) -> Site:
        """A machine's disk and its mount of the volume."""
        self._machines += 1
        mount = self.root / f"mount-{self._machines}"
        volume = FolderVolume(self.committed, mount)
        volume.reload()
        return Site(self.root / f"local-{self._machines}", mount, volume)

    def store(self) -> MeanStore:
        """The means of the volume, on another machine."""
        site = self.site()
        return MeanStore(site.local / "means", replica=site.replica())

    def worker(self, site: Site) -> Worker:
        """The model on another machine."""
        return Worker(self._engine, self._loaded, site.local, site.replica(), limits=LIMITS)

    def runner(self) -> ShardRunner:
        """A runner of shards on another machine."""
        site = self.site()
        return ShardRunner(self.worker(site), site)

    def keep_warm(self) -> None:
        """Let one container compute all further shards, one after the other."""
        self._warm = self.runner()

    def map(
        self, method: str, corpus: str = "bridges.jsonl", **arguments: Any
    ) -> Callable[[Sequence[str]], Iterator[dict[str, Any] | BaseException]]:
        """Do what `.map(..., return_exceptions=True)` of the class does, one after the other."""

        def run(shards: Sequence[str]) -> Iterator[dict[str, Any] | BaseException]:
            for shard in shards:
                self.attempts[shard] += 1
                self.on_start(shard)
                try:
                    call = getattr(self._warm or self.runner(), method)
                    yield call(corpus, shard=shard, **arguments)
                except Exception as error:
                    yield error

        return run
