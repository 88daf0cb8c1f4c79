"""Files of tokens: an error names the setting that named the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kedge.core.errors import BadConfig
from kedge.gateway.auth import CALLERS, TESTERS, read_tokens


@pytest.mark.parametrize("setting", [f"server.{TESTERS}", f"server.{CALLERS}"])
@pytest.mark.parametrize(
    ("text", "mode"), [(None, 0), ("a" * 20, 0o644), ("short", 0o600), ("a" * 70_000, 0o600)]
)
def test_an_error_names_the_setting_of_its_file(
    tmp_path: Path, setting: str, text: str | None, mode: int
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(BadConfig) as caught:
        read_tokens(path, setting)
    assert str(caught.value).startswith(f"{setting}: ") or f" {setting}: " in str(caught.value)


def test_comments_and_empty_lines_are_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"\ufeff# of ada\n\n{'a' * 16}\n  {'b' * 16}  \n")
    path.chmod(0o600)
    assert read_tokens(path, "x") == [b"a" * 16, b"b" * 16]
