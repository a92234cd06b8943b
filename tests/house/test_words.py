"""The tree speaks of the project alone, promises nothing, and its documents name files that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import TOP, files, name

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:wo" r"rk|ro" r"ot|ho" r"me)/",
    "a promise instead of code": r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|NotImpl" r"ementedError",
    "a promise in prose": r"\bfor no" r"w\b(?!here| in )|\bplace" r"holder\b|\bstub" r"bed\b",
    "an issue's number": r"\b(?:issue|ticket) #?\d",
}
BINARY = (".xz", ".gz", ".png", ".pcap", ".zst")
TEXT = [path for path in files() if path.suffix not in BINARY]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_tree_does_not_contain(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{name(path)}:{number}: {line.strip()[:100]}"
        for path in TEXT
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_lines_end_cleanly() -> None:
    wrong = []
    for path in TEXT:
        text = path.read_bytes()
        if b"\r" in text or (text and not text.endswith(b"\n")) or re.search(rb"[ \t]\n", text):
            wrong.append(name(path))
    assert not wrong, wrong


DOCUMENTS = list(files(".md"))
OWN_PATH = re.compile(r"`((?:docs|ixroute|tests|bench|extra)/[\w./-]+|[A-Z]+\.md|\./dev)\b[^`]*`")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def named_paths(document: Path) -> Iterator[tuple[str, Path]]:
    text = document.read_text()
    for match in OWN_PATH.finditer(text):
        yield match[1], TOP / match[1]
    for match in LINK.finditer(text):
        yield match[1], document.parent / match[1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_a_document_names_exists(document: Path) -> None:
    missing = [text for text, path in named_paths(document) if not path.exists()]
    assert not missing, f"{name(document)} names {missing}"
