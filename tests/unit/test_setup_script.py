"""scripts/setup.sh looks at the disk before it fills it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"
NEEDED_KB = 3 * 1024 * 1024
PIP_RAN = 7


def run_setup(folder: Path, free_kb: int) -> subprocess.CompletedProcess[str]:
    """The script in a folder of its own, on a disk of which `df` says that so much is free."""
    (folder / "scripts").mkdir()
    shutil.copy(SCRIPT, folder / "scripts")
    commands = folder / "commands"
    commands.mkdir()
    said = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 9 9 {free_kb} 9% /"
    write_command(commands / "df", f"echo '{said}'")
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(folder / "scripts" / "setup.sh")],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=60,
    )


def write_command(file: Path, line: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)


def test_too_little_disk_is_one_sentence_before_anything_is_made(tmp_path: Path) -> None:
    """With less than 3 GB free, nothing is installed, and one sentence says how much is needed."""
    done = run_setup(tmp_path, NEEDED_KB - 1)
    assert done.returncode == 2
    assert done.stderr == (
        f"Python's packages need 3 GB in {tmp_path}, and 3071 MB are free there: "
        "make room, or clone Open Pool to a larger disk.\n"
    )
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("free_kb", "held_kb"), [(NEEDED_KB, 0), (NEEDED_KB - 4096, 8192)])
def test_enough_disk_goes_on_to_pip(tmp_path: Path, free_kb: int, held_kb: int) -> None:
    """3 GB are enough, and what an earlier .venv takes counts among them."""
    write_command(tmp_path / ".venv" / "bin" / "python", f"exit {PIP_RAN}")
    (tmp_path / ".venv" / "held").write_bytes(os.urandom(held_kb * 1024))
    assert run_setup(tmp_path, free_kb).returncode == PIP_RAN
