"""Other kinds of callers, beside the jobs: each repeats its calls until it is stopped."""

import collections
import contextlib
import threading
import time

import numpy as np

from actvec.client import ActvecError, Client, DeadlineExceeded, NotFound, ServerUnavailable

TEXTS = [f"{word} and what follows it " * repeats for repeats, word in enumerate("abcdefgh", 1)]


class Caller:
    """Repeats a turn in a thread. Counts the errors that a broken connection may cause.

    Attributes:
        done: How many turns ended how.
        answered: Set once a turn was answered.
    """

    def __init__(self, target):
        self.done = collections.Counter()
        self.answered = threading.Event()
        self._error = None
        self._client = Client(target, timeout=20)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def turn(self, client):
        """Make one call, or a few that belong together."""
        raise NotImplementedError

    def end(self):
        """Finish the turn; return the first unexpected error, or None."""
        self._ended.set()
        self._thread.join()
        self._client.close()
        return self._error

    def _run(self):
        while not self._ended.wait(0.05):
            try:
                self.turn(self._client)
                self.done["answered"] += 1
                self.answered.set()
            except (ServerUnavailable, DeadlineExceeded):
                self.done["not answered, and told so"] += 1
            except ActvecError as error:
                # Code CANCELLED: the server was killed or terminated during the call.
                if "CANCELLED" not in str(error):
                    self._error = error
                    return
                self.done["not answered, and told so"] += 1
            except Exception as error:
                self._error = error
                return


class Asking(Caller):
    """Asks for one text at a time, and checks that its vector never changes."""

    def __init__(self, target, undisturbed):
        with Client(undisturbed) as client:
            self._expected = [client.extract(text, mode="long").values for text in TEXTS]
        self._number = 0
        super().__init__(target)

    def turn(self, client):
        """Ask for one text."""
        number = self._number % len(TEXTS)
        self._number += 1
        values = client.extract(TEXTS[number], mode="long").values
        assert np.array_equal(values, self._expected[number]), TEXTS[number]


class Leaving(Caller):
    """Opens streams and leaves them in the middle."""

    def turn(self, client):
        """Take three results of one stream."""
        with contextlib.closing(client.stream(TEXTS * 8, mode="short")) as results:
            for _ in range(3):
                next(results)


class Centering(Caller):
    """Makes a small mean under a name that it has used before, centers by it, and deletes it."""

    def turn(self, client):
        """Make, use and delete one mean."""
        name = f"small-{time.monotonic_ns()}"
        mean = client.corpus_mean(TEXTS, job=name)
        assert mean.documents == len(TEXTS)
        centered = client.extract(TEXTS[0], mode="short", center=mean.id)
        assert centered.stamp.corpus_mean_sha256 == mean.sha256
        client.list_means()
        # Sent twice if the first answer was lost.
        with contextlib.suppress(NotFound):
            client.delete_mean(mean.id)
