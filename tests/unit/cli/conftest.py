"""A daemon made up: the real control server, with made-up answers."""

import cli_canned
import pytest

from ixroute.control import CommandError, ControlServer

ROUTES = 2500


def routes(params):
    prefix = params["prefix"]
    if params["family"] == 6:
        return {"routes": [], "next": None}
    if prefix:
        return {"routes": [cli_canned.route(prefix)], "next": None}
    numbers = range(params["cursor"], min(ROUTES, params["cursor"] + min(params["limit"], 700)))
    found = [cli_canned.route(f"10.{n >> 8}.{n & 255}.0/24") for n in numbers]
    return {"routes": found, "next": numbers.stop if numbers.stop < ROUTES else None}


def reload(params):
    raise CommandError("x.toml:3: log.level: must be loud")


PORT = cli_canned.stats()["ports"][0] | {"ifindex": 7, "queues": 2, "mode": "native", "zero_copy": True}
PORT["features"] = {"mode": "native", "zero_copy": True, "queues": 2}
NEIGHBOR = {"address": "198.51.100.1", "dev": "wan0", "mac": "", "state": "incomplete", "managed": True}
COMMANDS = {
    "stats": lambda params: cli_canned.stats(),
    "ports": lambda params: [PORT],
    "workers": lambda params: cli_canned.stats()["workers"],
    "neighbors": lambda params: [NEIGHBOR],
    "adjacencies": lambda params: [cli_canned.lookup()["adjacency"]],
    "routes": routes,
    "rules": lambda params: cli_canned.rules(),
    "lookup": lambda params: cli_canned.lookup() | params,
    "reload": reload,
    "resync": lambda params: {"text": "12 routes repaired"},
}


@pytest.fixture
def daemon(tmp_path):
    """Path of a control socket at which somebody answers."""
    server = ControlServer(tmp_path / "daemon.sock", COMMANDS)
    server.start()
    yield server.path
    server.close()
