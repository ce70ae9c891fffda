"""docs/trust.md, of benchmarks/prediction.json and noise.json. ``--check`` only says whether the document is theirs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.model import EncoderConfig
from edgelm.profile.layers import least
from edgelm.profile.table import Table, markdown
from edgelm.roofline import Times, ideal_ms, work
from edgelm.runs import Peak
from page import absent, publish

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "trust.md"
PREDICTION, NOISE = ROOT / "benchmarks" / "prediction.json", ROOT / "benchmarks" / "noise.json"

Row = dict[str, Any]


def main() -> None:
    """Write the document, or check it. Without figures there is none."""
    if not (PREDICTION.exists() and NOISE.exists()):
        absent(DOCUMENT, by="make bench-prediction bench-noise")
    prediction, noise = (json.loads(path.read_bytes()) for path in (PREDICTION, NOISE))
    publish(DOCUMENT, document(prediction, noise), by="benchmarks/trust_page.py")


def document(prediction: Row, noise: Row) -> str:
    """The Markdown."""
    head = "# How far to believe a prediction, and a comparison"
    return "\n\n".join([head, *_predicted(prediction), *_compared(noise)]) + "\n"


def _predicted(result: Row) -> Iterator[str]:
    machine, names = result["machine"], list(result["shapes"])
    yield "## A prediction from the roofline"
    yield _said(f"""
        `edgelm export` and `edgelm build` say what latency to expect on a device whose profile has its peaks, which
        `edgelm devices detect` measures. Of every layer they take the time of its multiply-adds and of its bytes at
        those peaks, one after the other, times what was measured by `make bench-prediction`
        ([result](../benchmarks/prediction.json)) on {machine["cpu"]}, {machine["cores"]} cores,
        {", ".join(machine["isa"])}: {len(names)} models of random weights ({"; ".join(names)}), 16, 32 and 128 tokens,
        1 and 2 threads. *From* and *to* are the least and the most of them, and so are those of a prediction.
    """)
    yield markdown(Table("", ("engine", "precision", "n", "times", "from", "to"), tuple(_times(result)))).strip()
    yield _said("""
        Each model in turn was predicted from the others alone. The error is that of the middle of the prediction;
        inside is how often what was measured lay between *from* and *to*. In brackets, the same error with the
        classical roof, the longer of the two times of a layer, in place of their sum.
    """)
    columns = ("engine", "precision", "median error", "largest error", "inside")
    yield markdown(Table("", columns, tuple(_left_out(result)))).strip()
    yield _paused(result)
    yield _said("""
        Nothing else was measured. On a device of another kind a prediction also supposes that its kernels come as
        close to its own peaks as they do here, and no figure says that they do. Of a device without peaks, of a
        precision that is not in the table and of a model of TensorFlow nothing is predicted.
    """)


def _ratios(result: Row, engine: str, precision: str) -> list[tuple[str, float, float]]:
    """Of each row of a variant: its model, and what was measured over the sum, and over the roof."""
    peaks = {one["threads"]: Peak(**one) for one in result["peaks"]}
    found = []
    for row in result["rows"]:
        if (row["engine"], row["precision"]) == (engine, precision):
            config, peak = EncoderConfig(**result["shapes"][row["shape"]]), peaks[row["threads"]]
            layers = work(config, row["precision"], row["tokens"])
            roof = 1e3 * sum(max(least(layer, peak)) for layer in layers)
            total = ideal_ms(config, row["precision"], row["tokens"], peak)
            found.append((row["shape"], row["p50_ms"] / total, row["p50_ms"] / roof))
    return found


def _variants(result: Row) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["engine"], row["precision"]) for row in result["rows"]))


def _times(result: Row) -> Iterator[tuple[str, ...]]:
    for engine, precision in _variants(result):
        found = Times.of([one for _, one, _ in _ratios(result, engine, precision)])
        yield engine, precision, str(found.n), *(f"{one:.2f}" for one in (found.median, found.least, found.most))


def _left_out(result: Row) -> Iterator[tuple[str, ...]]:
    for engine, precision in _variants(result):
        ratios = _ratios(result, engine, precision)
        errors, roofs, inside = list[float](), list[float](), list[bool]()
        for name, by_sum, by_roof in ratios:
            others = [(one, roof) for other, one, roof in ratios if other != name]
            sums, tops = zip(*others, strict=True)
            errors.append(abs(float(np.median(sums)) / by_sum - 1))
            roofs.append(abs(float(np.median(tops)) / by_roof - 1))
            inside.append(min(sums) <= by_sum <= max(sums))
        middle, largest = (
            f"{100 * of(errors):.0f} % ({100 * of(roofs):.0f} %)" for of in (lambda x: float(np.median(x)), max)
        )
        yield engine, precision, middle, largest, f"{sum(inside)} of {len(inside)}"


def _paused(result: Row) -> str:
    """What pauses cost: the rows with a rest beside those without."""
    plain = {_key(row): row["p50_ms"] for row in result["rows"]}
    more = [row["p50_ms"] - plain[_key(row)] for row in result["paused"]]
    return _said(f"""
        Requests came one right after the other. After a pause of 20 ms the second core of this virtual machine has to
        be woken: with 2 threads, {" and ".join(dict.fromkeys(row["shape"] for row in result["paused"]))} then took
        {min(more):.1f} to {max(more):.1f} ms longer, which no prediction has in it, and `edgelm profile`, which rests
        between variants, does.
    """)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("shape", "engine", "precision", "threads", "tokens"))


def _compared(result: Row) -> Iterator[str]:
    machine = result["machine"]
    yield "## A comparison of two profiles"
    yield _said(f"""
        {result["profiles"]} profiles of the same bundle at {result["tokens"]} tokens with 2 threads, each by a process
        of its own, all compared with all: nothing was changed, so every change that is found is a false alarm. Made by
        `make bench-noise` ([result](../benchmarks/noise.json)) on {machine["cpu"]}, {machine["cores"]} cores; with
        *neighbour*, another program took a core for some seconds, and left it for some.
    """)
    rows = []
    for row in result["rows"]:
        gaps = [f"{100 * row[name]:.1f} %" for name in ("median", "p95", "largest")]
        shares = [f"{100 * row[name]:.0f} %" for name in ("outside_interval", "disturbed", "false_alarms")]
        rows.append((row["machine_is"], str(row["pairs"]), *gaps, *shares))
    columns = ("machine", "pairs", "medians differ by", "95 % of them by", "at most", "outside the interval")
    yield markdown(Table("", (*columns, "known to be disturbed", "false alarms"), tuple(rows))).strip()
    yield _said("""
        A change counts when its interval has no 1 in it and it is more than 2 %, or more than 10 % where the machine
        tells that something interfered with one of the two. It is the intervals that keep alarms rare here: a median
        scatters so much that a floor alone would not. A change to be proved needs a quieter machine than this, or
        more than two profiles.
    """)


def _said(words: str) -> str:
    """A paragraph."""
    return textwrap.fill(" ".join(words.split()), 119, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
