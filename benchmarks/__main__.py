"""`python -m benchmarks [NAME ...]`: run all benchmarks, or the named ones."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each benchmark in a process of its own, so that none inherits another's memory."""
    here = Path(__file__).parent
    known = sorted(p.stem for p in here.glob("*.py") if not p.stem.startswith("_"))
    wanted = sys.argv[1:] or known
    if unknown := set(wanted) - set(known):
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    failed = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
