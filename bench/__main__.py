"""python -m bench NAME [options]: each module of this package is a benchmark and has a main(argv).

`--names` prints which there are; all but fib and ixgbe make network namespaces, so they need
root.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

NOT_BENCHMARKS = {"__main__", "common", "tables"}


def main(argv: list[str]) -> int:
    names = sorted(
        m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in NOT_BENCHMARKS
    )
    if argv == ["--names"]:
        print(*names)
        return 0
    if not argv or argv[0] not in names:
        print(f"usage: python -m bench NAME [options]\n\nNAME: {', '.join(names)}", file=sys.stderr)
        return 2
    run: Callable[[list[str]], int] = importlib.import_module(f"bench.{argv[0]}").main
    return run(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
