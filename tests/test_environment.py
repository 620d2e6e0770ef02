import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "check_environment.py"


def run_check(path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False)


def test_nothing_here_breaks_speech_models() -> None:
    result = run_check()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["torchaudio", "torchcodec"])
def test_harmful_package_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    result = run_check(tmp_path)
    assert result.returncode == 1
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_installed_but_not_importable_is_found(tmp_path: Path) -> None:
    metadata = tmp_path / "torchaudio-2.11.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n")
    assert run_check(tmp_path).returncode == 1
