"""MLPerf's load generator, which decides when a request comes and when there are enough of them.

The scenarios are those of the MLPerf Inference rules: ``single-stream``, one request after the other; ``offline``, all
at once; ``server``, at random as people come, by a Poisson process. Whether a run counts is LoadGen's to say.
"""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgelm.errors import MissingExtra

__all__ = ["MIN_COUNT", "MIN_SECONDS", "SCENARIOS", "Load", "Outcome", "generate"]

MIN_SECONDS, MIN_COUNT = 60.0, 1024
"""What the rules of MLPerf Mobile ask of a run in SingleStream; both have to be reached."""

SCENARIOS = {"single-stream": "SingleStream", "offline": "Offline", "server": "Server"}
"""What LoadGen calls them."""

_MARGIN = 2  # LoadGen makes requests beforehand by the rate that it is told; too few of them make a run invalid
_PERCENTILES = {"single-stream": 0.9, "server": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What requests come, and until when.

    Attributes:
        scenario: how they come.
        min_seconds: for at least so long.
        min_count: and at least so many.
        rate: requests a second: of ``server`` the mean, of ``offline`` what is expected.
        bound_ns: of ``server``, what 99 % of the requests have to keep for the run to be valid.
    """

    scenario: Literal["single-stream", "offline", "server"]
    min_seconds: float = MIN_SECONDS
    min_count: int = MIN_COUNT
    rate: float
    bound_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened; in the order in which requests came.

    Attributes:
        rows: which request it was.
        at_ns: when it came, after the first one.
        samples_ns: from then to its answer: in ``server`` and ``offline`` it may have waited for others.
        verdict: of LoadGen: ``VALID``, or ``INVALID`` with its reasons.
        loadgen_ns: the percentile that the scenario is judged by, by LoadGen's own clock: it counts from when it meant
            a request to come, so its figure has our own delay in it. None of ``offline``, which has none.
    """

    rows: tuple[int, ...]
    at_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    verdict: str
    loadgen_ns: int | None


def generate(requests: Sequence[Callable[[], object]], load: Load) -> Outcome:
    """Let LoadGen draw among requests and run them in this process, one at a time.

    Raises:
        MissingExtra: LoadGen is not installed.
    """
    try:
        import mlperf_loadgen
    except ModuleNotFoundError as exc:
        raise MissingExtra("a scenario of MLPerf", "loadgen") from exc
    with tempfile.TemporaryDirectory(prefix="edgelm-loadgen-") as name:
        subject = _Subject(mlperf_loadgen, requests)
        with _Worker(subject.work, subject.stop):
            issue = subject.issue if load.scenario == "server" else subject.answer
            _start(mlperf_loadgen, issue, len(requests), _settings(mlperf_loadgen, load), Path(name))
        verdict, loadgen_ns = _result(Path(name), _PERCENTILES.get(load.scenario))
        return subject.outcome(verdict, loadgen_ns)


class _Subject:
    """The system under test: it answers queries one at a time, where they come or in a thread of its own."""

    def __init__(self, lg: Any, requests: Sequence[Callable[[], object]]) -> None:
        self._lg, self._requests = lg, requests
        self._queue: queue.SimpleQueue[tuple[Any, int] | None] = queue.SimpleQueue()
        self._done: list[tuple[int, int, int]] = []
        self._error: BaseException | None = None

    def answer(self, samples: Sequence[Any]) -> None:
        """Answer at once: LoadGen sends nothing more before."""
        came = time.perf_counter_ns()
        for sample in samples:
            self._run(sample, came)

    def issue(self, samples: Sequence[Any]) -> None:
        """Answer later: LoadGen goes on sending."""
        came = time.perf_counter_ns()
        for sample in samples:
            self._queue.put((sample, came))

    def work(self) -> None:
        """Answer what is issued, until told to stop."""
        while (found := self._queue.get()) is not None:
            self._run(*found)

    def stop(self) -> None:
        """End ``work``."""
        self._queue.put(None)

    def _run(self, sample: Any, came: int) -> None:
        if self._error is None:
            try:
                self._requests[sample.index]()
            except Exception as exc:  # told after the test, which only ends when every query is answered
                self._error = exc
        self._done.append((came, time.perf_counter_ns(), sample.index))
        self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(sample.id, 0, 0)])

    def outcome(self, verdict: str, loadgen_ns: int | None) -> Outcome:
        """What happened.

        Raises:
            Exception: what the first request that failed raised.
        """
        if self._error is not None:
            raise self._error
        first = min((came for came, _, _ in self._done), default=0)
        return Outcome(
            rows=tuple(row for _, _, row in self._done),
            at_ns=tuple(came - first for came, _, _ in self._done),
            samples_ns=tuple(answered - came for came, answered, _ in self._done),
            verdict=verdict,
            loadgen_ns=loadgen_ns,
        )


class _Worker:
    """A thread that works until the context ends."""

    def __init__(self, work: Callable[[], None], stop: Callable[[], None]) -> None:
        self._thread, self._stop = threading.Thread(target=work, name="edgelm-subject"), stop

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join()


def _settings(lg: Any, load: Load) -> Any:
    name = SCENARIOS[load.scenario]
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, name)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(load.min_seconds * 1e3)
    settings.min_query_count = load.min_count
    settings.single_stream_expected_latency_ns = int(1e9 / load.rate / _MARGIN)
    settings.single_stream_target_latency_percentile = _PERCENTILES["single-stream"]
    settings.offline_expected_qps = load.rate * _MARGIN
    settings.server_target_qps = load.rate
    settings.server_target_latency_ns = load.bound_ns
    settings.server_target_latency_percentile = _PERCENTILES["server"]
    return settings


def _start(lg: Any, issue: Callable[[Sequence[Any]], None], rows: int, settings: Any, folder: Path) -> None:
    logs = lg.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    under_test = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(rows, rows, lambda found: None, lambda found: None)
    try:
        lg.StartTestWithLogSettings(under_test, library, settings, logs, str(folder / "no-audit.config"))
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(under_test)


def _result(folder: Path, share: float | None) -> tuple[str, int | None]:
    """What LoadGen says in its log, lines of JSON behind a marker: the verdict, and the percentile it goes by."""
    marker, found = ":::MLLOG ", dict[str, Any]()
    for line in (folder / "mlperf_log_detail.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(marker):
            entry = json.loads(line.removeprefix(marker))
            found[str(entry["key"])] = entry["value"]
    reasons = [str(found[key]) for key in ("result_invalid_reason", "result_invalid_reasons") if found.get(key)]
    verdict = " ".join([str(found.get("result_validity", "UNKNOWN")), *reasons]).strip()
    percentile = None if share is None else found.get(f"result_{100 * share:.2f}_percentile_latency_ns")
    return verdict, None if percentile is None else int(percentile)
