"""A plugin of pytest for emulated cores: what cannot run there is skipped, and says why."""

from __future__ import annotations

from collections.abc import Generator

import hypothesis
import pytest

BUILD_SIDE = {"torch", "transformers", "safetensors", "onnx", "tensorflow", "ai_edge_quantizer", "litert_torch"}
BUILD_SIDE |= {"tomli_w", "matplotlib", "jinja2", "asyncssh"}

Collected = Generator[None, pytest.CollectReport, pytest.CollectReport]


def pytest_configure() -> None:
    """Let examples take their time: an emulator's says nothing."""
    hypothesis.settings.register_profile("emulated", deadline=None)
    hypothesis.settings.load_profile("emulated")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Collected:
    """Skip a module that imports such a package."""
    report = yield
    call = getattr(report, "call", None)
    if call and call.excinfo and (reason := lacking(call.excinfo.value)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: {reason}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Skip a test whose fixtures import such a package."""
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Skip a test that imports such a package itself."""
    return (yield from _skipping())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked as not for an emulated core."""
    for item in items:
        if mark := item.get_closest_marker("native"):
            item.add_marker(pytest.mark.skip(reason=f"emulated: {mark.args[0]}"))


def lacking(error: BaseException | None) -> str | None:
    """Why to skip, where an error is that such a package is missing, or was raised from that."""
    while error is not None:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in BUILD_SIDE:
            return f"needs {package}, which a device does not have"
        error = error.__cause__
    return None


def _skipping() -> Generator[None]:
    try:
        return (yield)
    except Exception as exc:
        if reason := lacking(exc):
            pytest.skip(reason)
        raise
