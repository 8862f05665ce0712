"""Real servers for the tests that want one: each is started once, and only if a test asks."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

import logs
from tests.peers.carbon import Carbon, running_carbon
from tests.peers.flux_checker import FluxChecker, running_flux_checker
from tests.peers.graphite_web import GraphiteWeb, running_graphite_web
from tests.peers.influxd import Influxd, running_influxd
from tests.peers.victoria_metrics import VictoriaMetrics, running_victoria_metrics

# A shell that starts us in the background lets us ignore Ctrl-C, and whatever we start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes says more about the machine than about us. For a long night there is
#     make test TESTS="--hypothesis-profile thorough"
settings.register_profile("wattherd", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile("wattherd")


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test wants hidden in the log is no secret to the next."""
    monkeypatch.setattr(logs, "_secrets", [])


@pytest.fixture(scope="session")
def carbon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carbon]:
    with running_carbon(tmp_path_factory.mktemp("carbon")) as server:
        yield server


@pytest.fixture(scope="session")
def graphite_web(carbon: Carbon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphiteWeb]:
    """A graphite-web that shows what the `carbon` of the same tests has."""
    folder = tmp_path_factory.mktemp("graphite-web")
    with running_graphite_web(folder, carbon.whisper_dir, carbon.query_port) as server:
        yield server


@pytest.fixture(scope="session")
def flux() -> Iterator[FluxChecker]:
    with running_flux_checker() as checker:
        yield checker


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with running_influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    with running_victoria_metrics(tmp_path_factory.mktemp("victoria-metrics")) as server:
        yield server
