"""Memory and time of building and opening collections of 10,000 to 1,000,000 passages.

    python tests/bench/corpus.py --sizes 10000 100000 --folder DIR

For each size a collection is generated, and two fresh processes measure: one builds it into a
cache, one opens the finished one, looks up 1,000 ids and reads their texts. Memory is what the
process holds itself at most (RssAnon of Linux, seen every 5 ms), minus what it held before: mapped
pages of files, which the system takes back when it needs them, do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

COLUMNS = (
    ("passages", "passages"),
    ("megabytes", "MB of text"),
    ("build_seconds", "build s"),
    ("build_peak", "build peak MB"),
    ("open_ms", "open ms"),
    ("lookup_ms", "1,000 ids ms"),
    ("read_ms", "1,000 texts ms"),
    ("open_peak", "open peak MB"),
)


def generate(folder: Path, passages: int) -> None:
    """Writes a collection of passages of 20 to 100 made-up words, every 100th judged."""
    rng = random.Random(passages)
    words = [f"w{number:04x}" for number in range(4096)]
    (folder / "qrels").mkdir(parents=True)
    with (
        (folder / "corpus.jsonl").open("w") as corpus,
        (folder / "queries.jsonl").open("w") as queries,
        (folder / "qrels" / "train.tsv").open("w") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(passages):
            text = " ".join(rng.choices(words, k=rng.randint(20, 100)))
            corpus.write(json.dumps({"_id": f"p{number}", "title": "", "text": text}) + "\n")
            if number % 100 == 0:
                queries.write(json.dumps({"_id": f"q{number}", "text": text[:40]}) + "\n")
                qrels.write(f"q{number}\tp{number}\t1\n")


def megabytes() -> float:
    """What this process holds in memory itself."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this benchmark needs /proc/self/status of Linux")


class Peak:
    """The most memory that is held while a block runs, beyond what was held before."""

    def __enter__(self) -> Peak:
        self._before = self._most = megabytes()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self._most = max(self._most, megabytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    @property
    def megabytes(self) -> float:
        return max(self._most, megabytes()) - self._before


def build(folder: Path, cache: Path) -> dict[str, float]:
    """Builds the collection; its bytes are hashed on the way."""
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection

    _warm(cache)
    start = time.perf_counter()
    with Peak() as peak:
        open_collection(str(folder), Cache(cache))
    return {"build_seconds": time.perf_counter() - start, "build_peak": peak.megabytes}


def reopen(folder: Path, cache: Path) -> dict[str, float]:
    """Opens the finished collection, finds 1,000 passages by id and reads them."""
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection

    _warm(cache)
    before, start = megabytes(), time.perf_counter()
    collection = open_collection(str(folder), Cache(cache))
    count = len(collection.passages)
    collection.passages.rows(["p0"])
    opened = time.perf_counter()
    ids = [f"p{number}" for number in random.Random(0).choices(range(count), k=1000)]
    rows = collection.passages.rows(ids)
    found = time.perf_counter()
    collection.passages.text(rows)
    read = time.perf_counter()
    return {
        "open_ms": 1000 * (opened - start),
        "lookup_ms": 1000 * (found - opened),
        "read_ms": 1000 * (read - found),
        "open_peak": megabytes() - before,
    }


def _warm(cache: Path) -> None:
    """Opens a collection of one passage, so that imports are not measured."""
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection

    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary) / "one", 1)
        open_collection(temporary + "/one", Cache(cache)).passages.rows(["p0"])


def measure(passages: int, root: Path) -> dict[str, float]:
    """One row of the table."""
    folder, cache = root / str(passages), root / f"{passages}-cache"
    generate(folder, passages)
    time.sleep(2.1)
    row: dict[str, float] = {
        "passages": passages,
        "megabytes": (folder / "corpus.jsonl").stat().st_size / 1e6,
    }
    for step in ("build", "reopen", "reopen"):
        done = subprocess.run(
            [sys.executable, __file__, "--step", step, "--folder", folder, "--cache", cache],
            capture_output=True,
            text=True,
            check=True,
        )
        row |= json.loads(done.stdout)
    return row


def main() -> None:
    """Prints the table; with --step, the figures of one process as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--step", choices=("build", "reopen"))
    given = parser.parse_args()
    if given.step:
        print(json.dumps({"build": build, "reopen": reopen}[given.step](given.folder, given.cache)))
        return
    print("| " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for size in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as root:
            row = measure(size, Path(root))
        shown = (f"{row[key]:,.{0 if row[key] > 999 else 1}f}" for key, _ in COLUMNS)
        print("| " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
