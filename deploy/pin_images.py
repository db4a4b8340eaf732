#!/usr/bin/env python3
"""Pins the images that others make to their digests: a tag may name another image tomorrow, a digest may not.

    python deploy/pin_images.py              look each tag up (docker buildx), write images.lock and the files
    python deploy/pin_images.py --check      do the files name the images of the lock? With --release: each by digest?

Standard library only. Status 1 and a line for each fault when a check fails or a digest cannot be looked up.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = "deploy/images.lock"
FILES = ("docker-compose.yml", "deploy/Dockerfile")
OURS = ("causeway",)  # built from this repository
_IMAGE = re.compile(r"^(?P<before>\s*(?:image:|FROM)\s+)(?P<image>\S+)", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UNKNOWN = "-"


class Unpinned(Exception):
    """A fault, in a sentence."""


@dataclass(frozen=True)
class Image:
    name: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + ("" if self.digest == UNKNOWN else f"@{self.digest}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Pin images to digests.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--release", action="store_true", help="with --check: every image must have a digest")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args()
    try:
        images = read_lock(options.root)
        if options.check:
            faults = [*_other_images(options.root, images), *(_without_digest(images) if options.release else [])]
        else:
            images = {name: _looked_up(image) for name, image in images.items()}
            _write(options.root, images)
            faults = []
    except (Unpinned, OSError) as error:
        faults = [str(error)]
    for fault in faults:
        print(f"pin_images: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_lock(root: Path) -> dict[str, Image]:
    images = {}
    for line in (root / LOCK).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, tag, digest = line.split()
            if digest != UNKNOWN and not _DIGEST.fullmatch(digest):
                raise Unpinned(f"{LOCK}: {digest} of {name} is not a digest")
            images[name] = Image(name, tag, digest)
    return images


def _other_images(root: Path, images: dict[str, Image]) -> list[str]:
    """A fault for each image of a file that is not the one of the lock."""
    faults = []
    for file in FILES:
        for found in _IMAGE.finditer((root / file).read_text()):
            image = found["image"]
            locked = images.get(_name(image))
            if image not in OURS and str(locked) != image:
                faults.append(f"{file} names {image}, {LOCK} {locked or 'no such image'}")
    return faults


def _without_digest(images: dict[str, Image]) -> list[str]:
    return [f"{image} has no digest: run deploy/pin_images.py" for image in images.values() if image.digest == UNKNOWN]


def _looked_up(image: Image) -> Image:
    argv = [
        "docker",
        "buildx",
        "imagetools",
        "inspect",
        f"{image.name}:{image.tag}",
        "--format",
        "{{.Manifest.Digest}}",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    digest = done.stdout.strip()
    if done.returncode or not _DIGEST.fullmatch(digest):
        raise Unpinned(f"no digest for {image.name}:{image.tag}: {done.stderr.strip() or digest or 'no answer'}")
    return Image(image.name, image.tag, digest)


def _write(root: Path, images: dict[str, Image]) -> None:
    head = [line for line in (root / LOCK).read_text().splitlines() if line.startswith("#")]
    width = max(len(name) for name in images) + 2
    lines = [f"{image.name:<{width}} {image.tag:<20} {image.digest}" for image in images.values()]
    (root / LOCK).write_text("\n".join([*head, *lines]) + "\n")
    for file in FILES:
        text = (root / file).read_text()
        (root / file).write_text(_IMAGE.sub(lambda found: found["before"] + _pinned(found["image"], images), text))


def _pinned(image: str, images: dict[str, Image]) -> str:
    if image in OURS:
        return image
    if _name(image) not in images:
        raise Unpinned(f"{image} is not in {LOCK}")
    return str(images[_name(image)])


def _name(image: str) -> str:
    """Without tag and digest."""
    return image.partition("@")[0].partition(":")[0]


if __name__ == "__main__":
    sys.exit(main())
