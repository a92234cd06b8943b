"""The control socket: what it answers, and what hostile or slow clients can do to it (nothing)."""

import contextlib
import json
import os
import socket
import stat
import threading
import time

import pytest

from ixroute.client import ControlError, NotRunningError, pages, request
from ixroute.control import MAX_CLIENTS, MAX_REQUEST_BYTES, CommandError, ControlServer
from ixroute.schema import MAX_PAGE


def refuse(params):
    raise CommandError(f"no {params['what']} here")


def fail(params):
    raise RuntimeError("secret detail")


def page(params):
    """2.5 pages of routes: numbers."""
    start, limit = params["cursor"], params["limit"]
    assert 0 < limit <= MAX_PAGE
    numbers = range(start, min(start + limit, MAX_PAGE * 5 // 2))
    return {"routes": list(numbers), "next": numbers.stop if numbers.stop < MAX_PAGE * 5 // 2 else None}


COMMANDS = {
    "echo": lambda params: params,
    "refuse": refuse,
    "fail": fail,
    "unwritable": lambda params: object(),
    "routes": page,
    "large": lambda params: "x" * 8_000_000,
}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run" / "x.sock")


@pytest.fixture
def server(path):
    server = ControlServer(path, COMMANDS, idle_seconds=0.5)
    server.start()
    yield server
    server.close()


@contextlib.contextmanager
def connection(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):  # the backlog is full for the moment
                sock.connect(path)
                break
            time.sleep(0.01)
        yield sock


def read_line(sock):
    with sock.makefile("rb") as stream:
        return json.loads(stream.readline())


def test_a_request_gets_its_result(server, path):
    assert request(path, "echo", a=1, b="zwei") == {"a": 1, "b": "zwei"}


def test_a_connection_carries_many_requests_also_all_at_once(server, path):
    with connection(path) as sock, sock.makefile("rb") as stream:
        for n in range(3):
            sock.sendall(json.dumps({"command": "echo", "n": n}).encode() + b"\n")
            assert json.loads(stream.readline())["result"] == {"n": n}
        sock.sendall(b"".join(json.dumps({"command": "echo", "n": n}).encode() + b"\n" for n in range(50)))
        assert [json.loads(stream.readline())["result"]["n"] for n in range(50)] == list(range(50))


def test_a_request_in_pieces_is_one_request(server, path):
    with connection(path) as sock:
        for byte in b'{"command": "echo"}\n':
            sock.sendall(bytes([byte]))
        assert read_line(sock) == {"ok": True, "result": {}}


def test_a_client_that_half_closes_still_gets_its_answer(server, path):
    with connection(path) as sock:
        sock.sendall(b'{"command": "large"}\n')
        sock.shutdown(socket.SHUT_WR)
        assert len(read_line(sock)["result"]) == 8_000_000


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "one line"),
        (b"hello", "one line"),
        (b"[]", "one line"),
        (b"3", "one line"),
        (b"null", "one line"),
        (b"{}", "one line"),
        (b'{"command": ["echo"]}', "unknown command; known: echo, fail"),
        (b'{"command": "nonsense"}', "unknown command"),
        (b"\xff\xfe\x00", "one line"),
        (b"[" * 10_000, "one line"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_goes_on(server, path, line, error):
    with connection(path) as sock, sock.makefile("rb") as stream:
        sock.sendall(line + b"\n")
        reply = json.loads(stream.readline())
        assert reply["ok"] is False
        assert error in reply["error"]
        sock.sendall(b'{"command": "echo"}\n')
        assert json.loads(stream.readline())["ok"] is True


def test_a_refusal_reaches_the_client_in_its_words(server, path):
    with pytest.raises(ControlError, match="no bread here"):
        request(path, "refuse", what="bread")


def test_a_failing_command_is_logged_and_hides_its_inside(server, path, caplog):
    with pytest.raises(ControlError, match="internal error in fail; see the daemon's log"):
        request(path, "fail")
    assert "secret detail" in caplog.text
    with pytest.raises(ControlError, match="internal error"):
        request(path, "unwritable")
    assert request(path, "echo") == {}


def test_a_request_without_end_is_cut_off(server, path):
    with connection(path) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"x" * (2 * MAX_REQUEST_BYTES))
        with contextlib.suppress(ConnectionResetError):
            assert b"longer than" in sock.recv(1000)
            assert sock.recv(1000) == b""
    assert request(path, "echo") == {}


def test_a_client_that_takes_no_answers_is_closed_and_stops_nobody(server, path):
    with connection(path) as slow:
        slow.sendall(b'{"command": "large"}\n' * 100)
        assert request(path, "echo") == {}
        taken = 0
        time.sleep(1.5)  # three times what it may be idle
        with contextlib.suppress(ConnectionResetError):
            while chunk := slow.recv(1 << 20):
                taken += len(chunk)
        assert taken < 8_000_000  # not even the first answer was kept for it for ever
    assert request(path, "echo") == {}


def test_a_silent_client_is_closed(server, path):
    with connection(path) as sock:
        assert sock.recv(1) == b""


def dribble(sock):
    for _ in range(400):
        sock.sendall(b" ")
        time.sleep(0.05)


def test_a_client_that_dribbles_is_closed(server, path):
    with connection(path) as sock, pytest.raises((BrokenPipeError, ConnectionResetError)):
        dribble(sock)


def test_more_clients_than_there_is_room_for_do_not_lock_anyone_out(path):
    server = ControlServer(path, COMMANDS, idle_seconds=60)
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        silent = [stack.enter_context(connection(path)) for _ in range(MAX_CLIENTS + 5)]
        assert request(path, "echo") == {}
        assert silent[0].recv(1) == b""  # the longest silent had to go


def test_clients_at_the_same_time_all_get_their_own_answers(server, path):
    answers = {}

    def ask(n):
        for i in range(20):
            answers[n, i] = request(path, "echo", n=n, i=i)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {(n, i): {"n": n, "i": i} for n in range(8) for i in range(20)}


def test_pages_are_fetched_until_the_end_or_the_limit(server, path):
    assert list(pages(path, "routes", "routes", None)) == list(range(MAX_PAGE * 5 // 2))
    assert list(pages(path, "routes", "routes", MAX_PAGE + 1)) == list(range(MAX_PAGE + 1))
    assert list(pages(path, "routes", "routes", 7)) == list(range(7))


def test_the_socket_is_for_owner_and_group_only(server, path):
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


def test_the_socket_goes_when_the_server_goes(server, path):
    server.close()
    assert not os.path.exists(path)
    server.close()
    with pytest.raises(NotRunningError, match="no ixroute answers"):
        request(path, "echo")


def test_a_socket_left_behind_is_replaced(path):
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    with pytest.raises(NotRunningError):
        request(path, "echo")
    server = ControlServer(path, COMMANDS)
    server.start()
    assert request(path, "echo") == {}
    server.close()


def test_a_socket_that_answers_is_not_replaced(server, path):
    with pytest.raises(ControlError, match="another ixroute answers"):
        ControlServer(path, COMMANDS).start()
    assert request(path, "echo") == {}


def test_a_file_in_the_way_is_left_alone(path):
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write("precious")
    with pytest.raises(ControlError, match="is not a socket"):
        ControlServer(path, COMMANDS).start()
    with open(path) as file:
        assert file.read() == "precious"


def test_a_server_does_not_remove_its_successors_socket(server, path):
    os.unlink(path)
    successor = ControlServer(path, COMMANDS)
    successor.start()
    server.close()
    assert request(path, "echo") == {}
    successor.close()


def test_an_unknown_group_or_directory_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ControlError, match=r"control socket .*/file/x\.sock: "):
        ControlServer(tmp_path / "file" / "x.sock", COMMANDS).start()
    with pytest.raises(ControlError, match="no group"):
        ControlServer(tmp_path / "x.sock", COMMANDS, group="no-such-group").start()
    assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b'{"ok": true', b"[]\n", b'{"ok": true}\n'])
def test_an_answer_that_is_none_is_an_error(tmp_path, answer):
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            with listener.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError, match="cut off or is not ixroute's"):
            request(path, "echo")
        thread.join()


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(tmp_path):
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(ControlError, match=r"no answer within 0\.2 s"):
            request(path, "echo", timeout=0.2)
