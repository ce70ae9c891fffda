"""edgelm beside its peers: one run, in turn, the same checkpoints, sentences and threads.

``make bench DATA=FOLDER MODELS=FOLDER`` writes benchmarks/peers.json, part after part: ``artifacts``, what each peer
makes of a checkpoint, its bytes and accuracy, and ``arm``, the instructions of a request on emulated cores, where
nothing is timed; then what needs a quiet machine, a part of latencies for each model, and ``cold``. A part that is
there is kept, unless it is named; of the artifacts, all that are there are kept, and what failed is tried again.
peers_page.py makes docs/peers.md of it.

Every peer is a process of its own, in the environment that its dependencies ask for, with one thread. A peer that
cannot be installed, prepared or run is listed with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.bundle import staged, staged_dir
from edgelm.devices.machine import machine
from edgelm.errors import DeviceUnavailable
from edgelm.schema import to_dict
from peer import PeerError, arm, clock
from peer.client import Worker
from peer.environments import python
from peer.inputs import Inputs
from peer.table import BASE, COMPRESSED, OURS, PEERS, REFERENCE, TEACHER, Peer

ROOT = Path(__file__).parent.parent
OUT, WORK = ROOT / "benchmarks" / "peers.json", ROOT / "build" / "peers"
THREADS, COLD_RUNS, SETTLED = 1, 3, 20
COMPARED = 32  # texts whose logits are compared
VOCAB = 30522
"""Of the teacher."""

BUDGETS = {1: (16.0, 5), 16: (15.0, 3)}
"""Of a cell, by batch: seconds for all peers together, and rounds at least."""

UNFINISHED = {"unfinished": True}

Row = dict[str, Any]
Parts = dict[str, Row]


def main() -> None:
    """Measure what is not there yet: half an hour for the artifacts, 20 minutes for the rest."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder with sst2/train.jsonl and sst2/dev.jsonl")
    arguments.add_argument("--models", type=Path, required=True, help="folder with sst2-teacher")
    arguments.add_argument(
        "--compressed", type=Path, help="checkpoint or bundle made of sst2-teacher; else by a recipe"
    )
    arguments.add_argument(
        "--part", action="append", choices=["artifacts", "arm", BASE, TEACHER, "cold"], help="only this one"
    )
    arguments.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="only this one")
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--work", type=Path, default=WORK, help="kept: remove an artifact to make it again")
    arguments.add_argument("--hurry", type=float, default=1.0, help="divide all times by this: to try whether it runs")
    given = arguments.parse_args()
    bench = Bench(Inputs(given.data, given.models, given.compressed, given.work.resolve()), given.hurry, given.peer)
    parts: dict[str, Callable[[Parts], Iterator[Row]]] = {
        "artifacts": bench.artifacts,
        "arm": bench.arm,
        BASE: lambda found: bench.speed(found, BASE),
        TEACHER: lambda found: bench.speed(found, TEACHER),
        "cold": bench.cold,
    }
    for name, part in parts.items():
        found: Parts = json.loads(given.out.read_bytes())["parts"] if given.out.exists() else {}
        there = name != "artifacts" and not found.get(name, UNFINISHED).get("unfinished")
        if name not in given.part if given.part else there:
            continue
        _measure(name, part, found, given.out, bench.inputs.compressed_name)


def _measure(name: str, part: Callable[[Parts], Iterator[Row]], found: Parts, out: Path, compressed: str) -> None:
    """Add a part to the result, which is written after each of its rows."""
    load, started = os.getloadavg()[0], time.monotonic()
    made: Row = {"machine": to_dict(machine()), "threads": THREADS, "compressed": compressed, **UNFINISHED}
    rows = list[Row]()
    for row in part(dict(found)):
        rows.append(row)
        found[name] = {**made, "rows": rows}
        _write(found, out)
    del made["unfinished"]
    times = {"load": [load, os.getloadavg()[0]], "seconds": round(time.monotonic() - started, 1)}
    found[name] = {**made, **times, "rows": rows}
    _write(found, out)


def _write(parts: Parts, out: Path) -> None:
    """As JSON with a line for each list of numbers."""
    text = json.dumps({"schema": "edgelm.bench-peers/1", "parts": parts}, indent=1)
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with staged(out) as staging:
        staging.write_text(text + "\n", encoding="utf-8")


class Bench:
    """The parts."""

    def __init__(self, inputs: Inputs, hurry: float, names: list[str] | None) -> None:
        """Nothing is measured yet."""
        self.inputs, self.hurry, self.references = inputs, hurry, dict[str, NDArray[Any]]()
        self.peers = [peer for peer in PEERS if names is None or peer.name in names]

    def artifacts(self, parts: Parts) -> Iterator[Row]:
        """What every peer makes of every checkpoint: bytes, versions, accuracy; or its error. What is known is kept."""
        before = parts.get("artifacts", {"compressed": "", "rows": ()})
        same = before["compressed"] == self.inputs.compressed_name
        asked = {
            (model, peer.name): peer
            for model in (BASE, TEACHER)
            for peer in self.peers
            if model == TEACHER or not peer.compressed
        }
        known = {(row["model"], row["peer"]): row for row in before["rows"] if "error" not in row}
        kept = {name: row for name, row in known.items() if name in asked and (same or not asked[name].compressed)}
        yield from kept.values()  # first: who stops it then loses none of them
        for name, peer in asked.items():
            if name not in kept:
                row = self._artifact(peer, name[0])
                print(json.dumps(row), flush=True)
                yield row

    def _artifact(self, peer: Peer, model: str) -> Row:
        row, started = Row(model=model, peer=peer.name), time.monotonic()
        try:
            files = [path for path in self._prepared(peer, model).rglob("*") if path.is_file()]
            with self._worker(peer, model, self.inputs.dev) as worker:
                wanted = range(len(self.inputs.gold) if model == TEACHER else COMPARED)
                answers = [np.array(one[0]) for one in worker.ask(answer=list(wanted))["answers"]]
                row |= {"bytes": sum(path.stat().st_size for path in files), "versions": worker.versions}
            if model == TEACHER:
                labels = np.array([one if one.ndim == 0 else one.argmax() for one in answers])
                row |= {"accuracy": float(np.mean(labels == self.inputs.gold)), "n": len(labels)}
            if answers[0].ndim and not peer.compressed:
                row |= self._compared(model, np.stack(answers[:COMPARED]))
        except PeerError as exc:
            row["error"] = str(exc)
        return row | {"seconds": round(time.monotonic() - started, 1)}

    def _compared(self, model: str, logits: NDArray[Any]) -> Row:
        """With PyTorch's in fp32: the largest difference, and the largest logit."""
        if model not in self.references:
            reference = next(peer for peer in PEERS if peer.name == REFERENCE)
            self._prepared(reference, model)
            with self._worker(reference, model, self.inputs.dev) as worker:
                answers = worker.ask(answer=list(range(COMPARED)))["answers"]
            self.references[model] = np.array([one[0] for one in answers])
        expected = self.references[model]
        return {"difference": float(np.abs(logits - expected).max()), "largest": float(np.abs(expected).max())}

    def arm(self, parts: Parts) -> Iterator[Row]:
        """Instructions of a request, of each artifact of the teacher that runs on an emulated core; or its error."""
        for name, path, detail in self._on_arm(parts):
            row = Row(model=TEACHER, peer=name)
            try:
                row["counts"] = list(arm.count(path, detail))
            except DeviceUnavailable as exc:
                row["error"] = str(exc)
            print(json.dumps(row), flush=True)
            yield row

    def _on_arm(self, parts: Parts) -> Iterator[tuple[str, Path, str]]:
        """What to count: peers that have an artifact for it, and edgelm's variants, exported for such a core."""
        for peer in self._able(parts, TEACHER):
            file = arm.FILES.get((peer.family, peer.kind))
            if file is not None:
                yield peer.name, self._folder(peer, TEACHER) / file, str(VOCAB)
            elif peer.name in (OURS, COMPRESSED):
                checkpoint = self.inputs.compressed if peer.compressed else self.inputs.checkpoints[TEACHER]
                whole = arm.bundle(checkpoint, self._folder(peer, TEACHER).parent / "arm")
                for variant, inside in arm.variants(whole):
                    yield f"{peer.name.replace('auto', '')}{variant}", whole, inside

    def speed(self, parts: Parts, model: str) -> Iterator[Row]:
        """Nanoseconds of every peer in every cell, in turn."""
        at = 0
        with ExitStack() as stack:
            workers, errors = self._started(parts, model, stack)
            for cell in self.inputs.cells:
                seconds, least = BUDGETS[cell.batch]
                here, at = range(at, at + len(cell.requests)), at + len(cell.requests)
                least = least if self.hurry == 1 else 1
                samples, failed = clock.timed(workers, here, seconds=seconds / self.hurry, least=least)
                yield {
                    "model": model,
                    "tokens": cell.tokens,
                    "batch": cell.batch,
                    "errors": errors | failed,
                    "ns": samples,
                }
                found = {name: (len(ns), round(float(np.median(ns)) / 1e6, 2)) for name, ns in samples.items()}
                print(model, cell.tokens, cell.batch, found, flush=True)

    def _started(self, parts: Parts, model: str, stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
        workers, errors = dict[str, Worker](), dict[str, str]()
        for peer in self._able(parts, model):
            try:
                workers[peer.name] = stack.enter_context(self._worker(peer, model, self.inputs.requests))
            except PeerError as exc:
                errors[peer.name] = str(exc)
        return workers, errors

    def cold(self, parts: Parts) -> Iterator[Row]:
        """A fresh process to its first answer, and its memory after some more; everyone in turn, the first run aside.

        What an engine keeps on the disk between runs is there: PyTorch's compiled kernels, edgelm's choice.
        """
        asked = [(peer, model) for model in (BASE, TEACHER) for peer in self._able(parts, model)]
        rows: list[Row] = [{"model": model, "peer": peer.name, "runs": []} for peer, model in asked]
        for turn in range(1 + (COLD_RUNS if self.hurry == 1 else 1)):
            for row, (peer, model) in zip(rows, asked, strict=True):
                try:
                    run = {} if "error" in row else self._fresh(peer, model)
                except PeerError as exc:
                    row["error"] = str(exc)
                    continue
                if turn and run:
                    row["runs"].append(run)
        for row in rows:
            print(json.dumps(row), flush=True)
            yield row

    def _fresh(self, peer: Peer, model: str) -> dict[str, int]:
        """One process: nanoseconds to its first answer, and bytes when it has answered some more."""
        with self._worker(peer, model, self.inputs.first) as worker:
            ns = worker.ask(time=0, before=0)["at"] - worker.started
            worker.ask(time=0, before=SETTLED)
            return {"ns": ns, **worker.ask()}

    def _able(self, parts: Parts, model: str) -> Iterator[Peer]:
        """Those whose artifact answered."""
        if "artifacts" not in parts:
            raise SystemExit("expected the part artifacts in the result: run it first, --part artifacts")
        good = {row["peer"] for row in parts["artifacts"]["rows"] if row["model"] == model and "error" not in row}
        return (peer for peer in self.peers if peer.name in good)

    def _folder(self, peer: Peer, model: str) -> Path:
        start = self.inputs.compressed_name if peer.compressed else model
        return self.inputs.work / start / peer.family / peer.kind

    def _prepared(self, peer: Peer, model: str) -> Path:
        """Where its artifact lies; made when it is not there.

        Raises:
            PeerError: its environment cannot be installed, or it cannot make the artifact.
        """
        folder = self._folder(peer, model)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            checkpoint = self.inputs.compressed if peer.compressed else self.inputs.checkpoints[model]
            with staged_dir(folder) as staging:
                asked = [peer.family, peer.kind, str(staging), str(checkpoint), str(self.inputs.calibration)]
                self._process(peer, *asked).__exit__(None, None, None)
        return folder

    def _worker(self, peer: Peer, model: str, requests: Path) -> Worker:
        return self._process(peer, peer.family, peer.kind, str(self._folder(peer, model)), str(THREADS), str(requests))

    def _process(self, peer: Peer, *arguments: str) -> Worker:
        work = self.inputs.work
        paths = () if peer.environment else (ROOT,)  # of edgelm, whose environment may have another checkout's
        return Worker(python(peer.environment, work), *arguments, threads=THREADS, log=work / "log.txt", paths=paths)


if __name__ == "__main__":
    main()
