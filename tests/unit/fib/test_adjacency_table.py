"""The adjacency table."""

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.fib.adjacency import ADJ_NO_ROUTE, ADJ_RESERVED, Adjacency, AdjacencyTable

MAC = bytes.fromhex("0a0b0c0d0e0f")


def test_every_entry_begins_with_the_action_it_was_created_with() -> None:
    with AdjacencyTable(100, 33) as table:
        assert {table.get(i) for i in range(100)} == {Adjacency(bytes(6), 0, 33, 0)}


def test_what_is_set_is_what_is_got_and_the_neighbours_are_untouched() -> None:
    with AdjacencyTable(16, 1) as table:
        table.set(9, mac=MAC, interface=63, action=0, mtu=9000)
        assert table.get(9) == Adjacency(MAC, 63, 0, 9000)
        table.set(9, mac=bytes([255] * 6), interface=1023, action=63, mtu=0xFFFFFFFF)
        assert table.get(9) == Adjacency(bytes([255] * 6), 1023, 63, 0xFFFFFFFF)
        assert table.get(8) == table.get(10) == Adjacency(bytes(6), 0, 1, 0)


def test_the_first_byte_of_the_wire_is_the_lowest_of_the_word() -> None:
    with AdjacencyTable(16, 0) as table:
        table.set(0, mac=MAC, interface=2, action=3)
        word = ffi.new("uint64_t *")
        mtu = ffi.new("uint32_t *")
        assert lib.adjacency_get(table.c, 0, word, mtu) == 0
        assert word[0] == 3 << 58 | 2 << 48 | 0x0F_0E_0D_0C_0B_0A


def test_the_entries_lie_four_to_a_cache_line() -> None:
    for capacity in (1, 5, 4096):
        with AdjacencyTable(capacity, 0) as table:
            assert int(ffi.cast("uintptr_t", table.c)) % 64 == 0


@pytest.mark.parametrize("index", [-1, 16, 1 << 32])
def test_an_index_outside_the_table_is_an_index_error(index: int) -> None:
    with AdjacencyTable(16, 0) as table:
        with pytest.raises(IndexError):
            table.get(index)
        with pytest.raises(IndexError):
            table.set(index)


def test_c_refuses_an_index_outside_the_table() -> None:
    with AdjacencyTable(16, 0) as table:
        assert lib.adjacency_set(table.c, 16, ffi.NULL, 0, 0, 0) < 0
        assert lib.adjacency_set(table.c, 15, ffi.NULL, 0, 0, 0) == 0


def test_values_that_do_not_fit_are_refused() -> None:
    with AdjacencyTable(16, 0) as table:
        with pytest.raises(ValueError, match="mac"):
            table.set(8, mac=b"12345")
        with pytest.raises(ValueError, match="interface"):
            table.set(8, interface=1024)
        with pytest.raises(ValueError, match="action"):
            table.set(8, action=-1)
    for capacity, action in ((0, 0), (1 << 32, 0), (16, 64)):
        with pytest.raises(ValueError, match="adjacency table"):
            AdjacencyTable(capacity, action)


def test_a_closed_table_says_so() -> None:
    table = AdjacencyTable(16, 0)
    table.close()
    table.close()
    with pytest.raises(ValueError, match="closed"):
        table.get(0)


def test_the_reserved_indexes_are_below_the_first_path() -> None:
    assert ADJ_NO_ROUTE == 0
    assert ADJ_RESERVED == 8
