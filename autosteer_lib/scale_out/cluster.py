"""Which Ray cluster, how many actors, and do they fit? All of it is asked before a model is loaded.

    make reproduce RAY=1                     a Ray on this machine, for this run alone
    make reproduce RAY_ADDRESS=host:6379     one that is there already (slurm.sh, or `ray start` on each node)

An actor takes `gpus` GPUs if the model is on CUDA, and the run's torch threads in CPU cores. The notebooks' own
process has the model too, which it fits defences on; it stands beside the actors, on the first card that it sees.

The driver starts or joins the cluster once and tells its notebooks by an environment variable, as it does with
threads and offline mode. It is in no profile and no notebook parameter, because it must not matter to a number:
stamps, records and tables of a run on Ray are those of a run without.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

VARIABLE = "AUTOSTEER_RAY"
LOCAL = "local"
_DIAL_SECONDS = 5.0  # Ray itself tries for minutes, and then ends the process
_LISTED = 6  # nodes that an error names


class CannotScaleOut(ValueError):
    """There is no such cluster, or it is too small; nothing was loaded."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where actors are to run, and how many."""

    address: str = LOCAL
    """"local" starts a Ray for this process; host:port joins one; "auto" joins the one of this machine."""
    actors: int | None = None
    """None: as many as the cluster has room for."""
    gpus: int = 1
    """Cards an actor, for a model that [model] device_map spreads; not read for a model on the CPU."""

    def __post_init__(self) -> None:
        for name in ("actors", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; a run on Ray needs at least 1")
        host, _, port = self.address.rpartition(":")
        if self.address not in (LOCAL, "auto") and not (host and port.isdigit() and "/" not in host):
            raise ValueError(
                f"Ray address {self.address!r}: write host:port, as `ray start --head` prints it (port 6379), "
                f'"auto" for a Ray of this machine, or "{LOCAL}" to start one'
            )

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """What the driver told this process; None where it said nothing."""
        said = os.environ.get(VARIABLE)
        return None if not said else cls(**json.loads(said))

    @property
    def variables(self) -> dict[str, str]:
        """What tells it to other processes."""
        return {VARIABLE: json.dumps(asdict(self))}

    def needs(self, *, device: str, threads: int) -> dict[str, float]:
        """Of one actor, as Ray counts it."""
        return {"CPU": 1.0, "GPU": float(self.gpus)} if device == "cuda" else {"CPU": float(threads)}

    def size(self, needs: Mapping[str, float]) -> int:
        """How many actors there will be. Connect first.

        Raises:
            CannotScaleOut: there is not enough room for them.
        """
        nodes = [node for node in import_ray().nodes() if node["Alive"]]
        room = sum(_fit(node["Resources"], needs) for node in nodes)
        if room < (self.actors or 1):
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
            there = "; ".join(
                ", ".join(f"{node['Resources'].get(name, 0):g} {name}" for name in needs)
                for node in nodes[:_LISTED]
            )
            raise CannotScaleOut(
                f"{self.actors or 1} actors of {wanted} each were asked for, and this Ray has room for {room} (its "
                f"{len(nodes)} nodes: {there}). Ask for fewer, add nodes, or look whether Ray sees the cards: `ray status`"
            )
        return self.actors or room


def connect(cluster: Cluster) -> str:
    """Join the cluster, or start it, unless this process has done so already.

    Returns:
        Where its dashboard is; empty if it has none, or if this process was connected before.

    Raises:
        CannotScaleOut: Ray is not installed, or nobody answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ""
    if cluster.address not in (LOCAL, "auto"):
        _dial(cluster.address)
    with _own_signals():
        try:
            context = ray.init(
                address=cluster.address,
                namespace="autosteer",
                log_to_driver=False,  # the actors' words stay in Ray's logs: a notebook's output must not change
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise CannotScaleOut(
                f"no Ray can be had at {cluster.address!r} ({' '.join(str(error).split())[:300]}); start one "
                "(`ray start --head`), correct RAY_ADDRESS, or use RAY=1 for one of this machine alone. One that asks for "
                "a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what it was started with"
            ) from error
    return context.dashboard_url or ""


@contextmanager
def started(cluster: Cluster, *, needs: Mapping[str, float]) -> Iterator[tuple[dict[str, str], str]]:
    """For a driver: the cluster stays up inside, and is known to have room.

    Yields:
        Environment variables by which other processes use it, and a line for people.
    """
    ray = import_ray()
    dashboard = connect(cluster)
    try:
        actors = cluster.size(needs)
        address = ray.get_runtime_context().gcs_address
        where = f"; dashboard: http://{dashboard}" if dashboard else ""
        told = Cluster(address=address, actors=actors, gpus=cluster.gpus)
        yield told.variables, f"Ray at {address}: {actors} actors{where}"
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Ray, which is optional.

    Raises:
        CannotScaleOut: it is not installed.
    """
    if find_spec("ray") is None:
        raise CannotScaleOut(
            "RAY=1 and RAY_ADDRESS need the package ray, which is not installed here; pip install -e '.[ray]', or leave "
            "them out to run in one process"
        )
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # it would report to its makers, also from offline profiles
    import ray

    return ray


def _fit(there: Mapping[str, float], needs: Mapping[str, float]) -> int:
    return min(int(there.get(name, 0) // amount) for name, amount in needs.items())


def _dial(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_DIAL_SECONDS).close()
    except OSError as error:
        raise CannotScaleOut(
            f"nobody answers at the Ray address {address} ({error}); start Ray there (`ray start --head --port={port}`), "
            "open the port, or correct RAY_ADDRESS. RAY=1 uses this machine alone"
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; the driver wants it as it was."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
