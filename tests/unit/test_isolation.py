"""What the pool's own process must never do."""

import subprocess
import sys


def test_the_pools_own_process_loads_no_decoder() -> None:
    """FFmpeg opens strangers' bytes in child processes only: the pool does not even import it."""
    code = "import sys, openpool.app; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
