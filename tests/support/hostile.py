"""Names and secrets that must go no further than they should."""

import gzip
from pathlib import Path

ESCAPES = ("../x", "/tmp/x", "a/../../x", "..", ".", "", "a\0b", "a\nb", "a\tb", "x" * 300, "\udcff", "a\u2028b")
"""Names that leave a folder or break a line."""
HOSTILE = (
    "-rf", "$(touch owned)", "`touch owned`", "a; touch owned", "<script>alert(1)</script>", "'\"><img src=x>", "%s{0}",
)  # fmt: skip
"""Names that an option parser, a shell or a browser would act on."""
SECRETS = {
    "WANDB_API_KEY": "secret-wandb",
    "MLFLOW_TRACKING_TOKEN": "secret-mlflow",
    "MLFLOW_TRACKING_PASSWORD": "secret-password",
    "AWS_SECRET_ACCESS_KEY": "secret-aws",
    "SLURM_JWT": "secret-jwt",
}
"""Variables of the environment."""


def files_with_secrets(folder: Path) -> list[str]:
    """Return the files with a secret in their bytes, also where they are gzipped."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        found += [str(path)] if b"secret-" in content else []
    return found
