"""Sources of empty files, and the roles that a survey gives them."""

from pathlib import Path

from preprocess.source.layouts import Survey


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def roles(found: Survey, root: Path) -> dict[str, str]:
    return {str(file.path.relative_to(root)): file.role for file in found.files}
