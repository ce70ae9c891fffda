"""ONNX Runtime: one artifact, any batch and length, on the CPU or wherever one of its execution providers runs."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from typing import Any

from edgelm.bundle import Bundle
from edgelm.devices.machine import machine
from edgelm.errors import BundleError, DataError, DeviceUnavailable
from edgelm.manifest import Variant
from edgelm.runtimes import Ids, Logits, Session
from edgelm.runtimes import providers as known
from edgelm.runtimes.given import Given, held, mapped, whole
from edgelm.runtimes.graphs import Graphs
from edgelm.runtimes.place import CPU, Place
from edgelm.runtimes.providers import PROVIDERS, Provider

__all__ = ["DEVICES", "FORMAT", "load", "load_from", "missing"]

FORMAT = "onnx"
_TOKENS, _LOGITS = 8192, 2**24  # of a batch
_CUDA = "CUDA failure"  # what a message of CUDA's own begins with
DEVICES = tuple(PROVIDERS)


def missing(device: str = "cpu") -> str | None:
    """Why ONNX Runtime cannot run on a device here, with the cure; None when it can be tried."""
    if importlib.util.find_spec("onnxruntime") is None:
        return f"ONNX Runtime is not installed: pip install '{PROVIDERS[device].package}'"
    if device == "cpu":
        return None
    onnxruntime = _imported()
    return known.missing(device, onnxruntime.get_available_providers(), onnxruntime.__version__)


def load(artifact: bytes, *, threads: int, place: Place = CPU) -> Session:
    """Load an ONNX model.

    Args:
        artifact: the file's content.
        threads: within an operator, on the CPU; operators run one after the other.
        place: where to run.

    Raises:
        BundleError: ONNX Runtime does not take it.
        DeviceUnavailable: the provider does not start here, or would leave nodes to the CPU.
    """
    return _started(held(artifact), threads, place)


def load_from(bundle: Bundle, variant: Variant, *, threads: int, place: Place = CPU) -> Session:
    """Load a variant of a bundle: its weights are mapped, and not copied, if they are not compressed; see ``load``."""
    regions = {name: bundle.region(name) for name in variant.files}
    stored = [region for region in regions.values() if region is not None]
    if len(stored) < len(regions):
        return _started(held(whole(bundle, variant)), threads, place)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        # meanwhile: hashing takes as long as starting
        checked = [pool.submit(bundle.check, name, region) for name, region in regions.items()]
        try:
            return _started(mapped(*stored), threads, place)
        finally:
            for one in checked:
                one.result()  # what is damaged is told as that, whatever ONNX Runtime makes of it


def _started(given: Given, threads: int, place: Place) -> Session:
    onnxruntime, wanted = _imported(), PROVIDERS[place.device]
    if wanted.nvidia:
        _check_number(place)
        onnxruntime.preload_dlls()  # of the packages that pip brings beside onnxruntime-gpu

    def start(**settings: str) -> Any:
        options = _options(onnxruntime, given, threads)
        if place.device == "cpu":
            return onnxruntime.InferenceSession(given.content, options, providers=[wanted.name], enable_fallback=0)
        options.log_severity_level = 4  # what goes wrong is raised, and need not be written to stderr as well
        options.add_provider(wanted.name, wanted.options(place) | settings)
        return onnxruntime.InferenceSession(given.content, options, enable_fallback=0)

    recorded = place.device == "cuda" and not place.allow_cpu_ops
    try:
        try:
            session = start(**({"enable_cuda_graph": "1"} if recorded else {}))
        except Exception as exc:
            if not (recorded and "graph capture" in str(exc)):
                raise
            session, recorded = start(), False  # some nodes are left to the CPU: which, a plain session tells
    except Exception as exc:  # the pybind module has exception types of its own, without a common base
        version = onnxruntime.__version__
        if place.device != "cpu" and (wanted.name in str(exc) or _CUDA in str(exc)):
            raise DeviceUnavailable(
                f"device '{place}': ONNX Runtime {version} cannot start {wanted.name}: {_line(exc)}; it wants "
                f"{wanted.cure}"
            ) from exc
        raise BundleError(f"ONNX Runtime {version} cannot load the artifact: {_line(exc)}") from exc
    nodes = _nodes(session)
    _hold(place, wanted, session.get_providers(), nodes)
    counts = {provider: sum(kinds.values()) for provider, kinds in nodes.items()}
    facts = {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "device": str(place),
        "provider": wanted.name,
        "threads": threads,
        "lengths": [],
        "nodes": counts,
    }
    if not wanted.nvidia:
        return _Session(session, facts)
    at_once = _tokens_at_once(session.get_outputs()[0].shape)
    running = Graphs(onnxruntime, session, place.number) if recorded else session
    return _Session(running, facts | {"cuda_graphs": recorded}, tokens_at_once=at_once)


def _options(onnxruntime: Any, given: Given, threads: int) -> Any:
    """The options of every session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that wait for the next request would spin on the cores that another model needs; those that wait for the
    # next operator would spin for a millisecond, and keep the other thread of a busy machine from what they wait for
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    given.tell_(options)
    return options


def _check_number(place: Place) -> None:
    """Refuse a GPU that is not there, where the driver tells which are.

    Raises:
        DeviceUnavailable: there is none of this number.
    """
    gpus = machine().gpus
    if gpus and place.number >= len(gpus):
        known = ", ".join(f"{place.device}:{number} ({name})" for number, name in enumerate(gpus))
        raise DeviceUnavailable(f"device '{place}': there is none of this number; this machine has {known}")


class _Session:
    def __init__(self, session: Any, facts: dict[str, Any], tokens_at_once: int = 0) -> None:
        self._session, self._facts, self.tokens_at_once = session, facts, tokens_at_once

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        session = self._session  # once: another thread may close it meanwhile
        if session is None:
            raise DataError("the model is closed: load it again")
        logits: Logits = session.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})[0]
        return logits

    def explain(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        self._session = None


def _tokens_at_once(output: list[int | str]) -> int:
    """How many tokens keep a GPU busy, unless that many have more logits than is good to hold, as of a vocabulary."""
    each = output[-1] if len(output) == 3 and isinstance(output[-1], int) else 1
    return max(1, min(_TOKENS, _LOGITS // each))


def _imported() -> Any:
    """The module, with its telemetry off: its wheels report by default from 1.29 on."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _nodes(session: Any) -> dict[str, Counter[str]]:
    """By provider, how many nodes of each kind it runs, as ONNX Runtime assigned them."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def _hold(place: Place, wanted: Provider, started: list[str], nodes: dict[str, Counter[str]]) -> None:
    """Refuse a session that does not run where it was asked to.

    Raises:
        DeviceUnavailable: the provider did not start, or nodes are left to the CPU and that was not allowed.
    """
    if wanted.name not in started:
        raise DeviceUnavailable(
            f"device '{place}': {wanted.name} is installed but does not start on this machine, and ONNX Runtime would "
            f"use {', '.join(started)}: {wanted.cure}"
        )
    elsewhere = (kinds for name, kinds in nodes.items() if name != wanted.name)
    others = Counter({kind: n for kind, n in sum(elsewhere, Counter[str]()).items() if kind not in wanted.host})
    if others and not place.allow_cpu_ops:
        count, kinds = others.total(), ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        raise DeviceUnavailable(
            f"device '{place}': {count} of {sum(map(Counter.total, nodes.values()))} nodes would run "
            f"on the CPU ({kinds}): take another precision, or allow_cpu_ops=True (--allow-cpu-ops)"
        )


def _line(exc: Exception) -> str:
    """What happened, without where in its own source ONNX Runtime noticed it."""
    said = str(exc).rpartition("[ONNXRuntimeError]")[2]
    return " ".join(said[max(said.find(_CUDA), 0) :].split(" ; ")[0].split()).lstrip(": ")[:200]
