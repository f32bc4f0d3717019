"""The front door of the benchmarks: `./granule bench [NAME...] [ARGUMENT...]`.

Every module of this folder that has a function `main` is a benchmark, and the first line of its docstring says what it
measures. Each runs in a process of its own, so that none finds another's threads, caches or imports. Arguments, which begin
with a dash, go to the benchmark; they can be given to one at a time.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main(argv: Sequence[str]) -> int:
    """List the benchmarks, or run those that are named. The exit status is that of the first that failed, else 0."""
    benches = find_benches(FOLDER)
    first_option = next((index for index, argument in enumerate(argv) if argument.startswith("-")), len(argv))
    names, options = list(argv[:first_option]), list(argv[first_option:])
    if not names:
        width = max(map(len, benches))
        sys.stdout.writelines(f"  {name:<{width}}  {what}\n" for name, what in benches.items())
        return 0
    unknown = [name for name in names if name not in benches]
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there is {', '.join(benches)}\n")
        return 2
    if options and len(names) > 1:
        sys.stderr.write("arguments can be given to one benchmark at a time\n")
        return 2
    statuses = [subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=False).returncode for name in names]
    return next((status for status in statuses if status), 0)


def find_benches(folder: Path) -> dict[str, str]:
    """Return the benchmarks in a folder of modules: name -> what it measures. Nothing is imported for that."""
    benches = {}
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body)
        if has_main and not path.stem.startswith("_"):
            benches[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return benches


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
