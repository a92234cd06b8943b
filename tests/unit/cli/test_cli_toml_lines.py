"""Where keys stand, beside what tomllib says is there."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixroute.config.toml_lines import key_lines, line_of

TEXT = '''\
# a comment with [brackets] and key = value
top = 1

[ports.wan0]   # a table
spec = "a = 'b' # not a comment"
list = [
  1, # one ]
  "]",
]
"quoted key" = 2
[ports."lan.0"]
spec = """
[not.a.table]
key = 1 \\""" still inside
"""
raw = \'\'\'
[nor.this]\'\'\'
a . b.c = 3
inline = { x = 1, y = { z = 2 } }
[[array]]
n = 1
last = true'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("ports", "wan0"), 4),
        (("ports", "wan0", "spec"), 5),
        (("ports", "wan0", "list"), 6),
        (("ports", "wan0", "quoted key"), 10),
        (("ports", "lan.0"), 11),
        (("ports", "lan.0", "spec"), 12),
        (("ports", "lan.0", "raw"), 16),
        (("ports", "lan.0", "a", "b", "c"), 18),
        (("ports", "lan.0", "a"), 18),
        (("ports", "lan.0", "inline", "y", "z"), 19),  # inside an inline table: the line of the table
        (("array", "n"), 21),
        (("array", "last"), 22),
        (("not", "there"), 1),
    ],
)
def test_a_key_is_found_on_its_line(path, line):
    tomllib.loads(TEXT)
    assert line_of(key_lines(TEXT), path) == line


def test_nothing_but_real_keys_is_listed():
    assert ("not", "a", "table") not in key_lines(TEXT)
    assert ("nor", "this") not in key_lines(TEXT)


def test_windows_line_ends_count_once():
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=6)
values = st.one_of(
    st.integers(-5, 5).map(str),
    st.text(st.sampled_from("ab#[]{}='\\\"\n"), max_size=8).map(
        lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    ),
    st.text(st.sampled_from('ab#[]{}=\n "'), max_size=8).map(lambda s: "'''" + s + "'''"),
    st.just("[\n 1,\n 2 ]"),
)


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.dictionaries(names, st.dictionaries(names, values, max_size=4), max_size=4))
def test_every_key_of_a_random_document_is_found_where_it_was_written(document):
    lines, expected = [], {}
    for table, entries in document.items():
        expected[table,] = len(lines) + 1
        lines.append(f"[{quoted(table)}]")
        for name, value in entries.items():
            expected[table, name] = len(lines) + 1
            lines += f"{quoted(name)} = {value}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    assert key_lines(text) == expected


@given(st.text(st.sampled_from("a.=[]{}'\"#\\\n \t1"), max_size=40))
def test_no_text_makes_it_fail_or_loop(text):
    key_lines(text)
