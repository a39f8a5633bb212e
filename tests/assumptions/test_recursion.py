"""Deeply nested input is refused, since nothing that we import takes the limit away."""

import subprocess
import sys

import pytest

DEEP_JSON = """
import sys
import openpool.app, openpool.cli, openpool.wallet
import openpool.chain.client, openpool.chain.livepeer, openpool.chain.signers
import msgspec
try:
    msgspec.json.decode(b'{"a":' * 1_000_000)
except RecursionError:
    print("refused")
"""


def test_a_deeply_nested_body_is_refused_by_a_running_pool() -> None:
    """With all of the pool imported, a body of a million levels is an error and no crash."""
    done = subprocess.run([sys.executable, "-c", DEEP_JSON], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr


@pytest.mark.parametrize("module", ["eth_account"])
def test_what_the_limit_is_guarded_against(module: str) -> None:
    """Importing this library alone still raises the limit; once it does not, drop the guard."""
    code = f"import sys, {module}; print(sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout) > 1_000
