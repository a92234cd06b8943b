"""Mutated control-socket requests and configurations: each gets an answer or an error that says what is wrong."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ixroute.config import Config, ConfigError, parse
from ixroute.config.text import example
from ixroute.control import MAX_REQUEST_BYTES, CommandError, ControlServer

PIECES = [
    "",
    "\0",
    "\n",
    '"',
    "'",
    '"""',
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\\",
    "\\u0000",
    "-1",
    "1e999",
]
PIECES += [
    "9" * 30,
    "9" * 5000,
    "true",
    "nan",
    "inf",
    "0x10",
    "1979-05-27T07:32:00Z",
    "\u00e9",
    "\ud7ff",
    "\U0001f600",
]
PIECES += [
    "[" * 2000,
    '{"a":' * 2000,
    "a." * 2000,
    "[a.b]\n",
    "[[ports]]\n",
    "x" * 300,
    "command",
    "[ports.wan0]\n",
]


def mutated(dice: random.Random, text: str) -> str:
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        at, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        match dice.randrange(4):
            case 0:
                text = text[:at] + dice.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[min(end, at + 20) :]
            case 2:
                text = text[:at] + chr(dice.randrange(1, 128)) + text[at + 1 :]
            case 3:
                text = text[:at] + text[at : min(end, at + 60)] * 2 + text[end:]
    return text


def test_any_text_is_a_configuration_or_a_configuration_error(seed: int, messages: int) -> None:
    dice = random.Random(seed)
    seeds = [example(), '[ports.wan0]\nspec = "af_xdp:eth1"\n[policers.local_route]\nrate = 1\nburst = 2\n']
    good = bad = 0
    for _ in range(messages // 20):
        text = mutated(dice, dice.choice(seeds))
        try:
            assert isinstance(parse(text), Config)
            good += 1
        except ConfigError:
            bad += 1
    assert good > 0
    assert bad > 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    def refuse(params: dict[str, Any]) -> object:
        raise CommandError("no")

    made = ControlServer(tmp_path / "x.sock", {"echo": lambda params: params, "refuse": refuse})
    made.start()
    yield made
    made.close()


def test_any_request_gets_one_answer(server: ControlServer, seed: int, messages: int) -> None:
    dice = random.Random(seed)
    requests = ['{"command": "echo", "a": [1, {"b": null}], "c": "x"}', '{"command": "refuse"}', "[]", "null"]
    answered = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(server.path)
        answers = sock.makefile("rb")
        for _ in range(messages // 10):
            line = mutated(dice, dice.choice(requests)).replace("\n", " ").encode("utf-8", "surrogatepass")
            if dice.random() < 0.1:
                line = dice.randbytes(len(line)).replace(b"\n", b" ")
            if len(line) >= MAX_REQUEST_BYTES:
                continue
            sock.sendall(line + b"\n")
            answer = json.loads(answers.readline())
            assert answer["ok"] is True or answer["error"]
            answered += 1
    assert answered > messages // 20
