"""What lines look like, where."""

import io
import logging
import os

import pytest

from ixroute import log


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(path, environ, level="info"):
    with open(path, "w") as stream:
        log.setup(level, stream, environ)
        logger = logging.getLogger("ixroute.x")
        logger.debug("one")
        logger.info("two")
        logger.warning("three\nfour")
        logger.error("five")
        logger.critical("six")
        logging.getLogger().handlers.clear()
    return path.read_text().splitlines()


def test_the_journal_gets_priorities_before_every_line(tmp_path):
    path = tmp_path / "log"
    path.touch()
    found = os.stat(path)
    lines = lines_of(path, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, "debug")
    assert lines == [
        "<7>ixroute.x: one",
        "<6>ixroute.x: two",
        "<4>ixroute.x: three",
        "<4>four",
        "<3>ixroute.x: five",
        "<2>ixroute.x: six",
    ]


@pytest.mark.parametrize("environ", [{}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "x"}])
def test_elsewhere_lines_are_plain_and_have_the_time(tmp_path, environ):
    lines = lines_of(tmp_path / "log", environ)
    assert lines[0].endswith(" INFO    ixroute.x: two")
    assert lines[0][:2] == "20"


def test_a_stream_without_a_file_is_no_journal():
    stream = io.StringIO()
    log.setup("warning", stream, {"JOURNAL_STREAM": "1:2"})
    logging.getLogger("ixroute.x").info("no")
    logging.getLogger("ixroute.x").warning("yes")
    assert stream.getvalue().count("\n") == 1


def test_a_flood_is_one_line_and_a_count(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    complain = log.Limited(logging.getLogger("ixroute.x"), logging.WARNING, seconds=10)
    for n in range(1000):
        complain("route %d failed", n)
    now[0] += 10
    complain("route %d failed", 1000)
    now[0] += 10
    complain("route %d failed", 1001)
    assert [record.getMessage() for record in caplog.records] == [
        "route 0 failed",
        "route 1000 failed (and 999 more like this in between)",
        "route 1001 failed",
    ]
