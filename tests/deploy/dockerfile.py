"""A Dockerfile as its instructions, for machines without an engine."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from dataclasses import dataclass, field


@dataclass
class Stage:
    """One FROM with what follows it."""

    name: str
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word):
        return [text for kind, text in self.steps if kind == word]


def read(path):
    """Stages by name; comments and continued lines put together."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text())
    text = re.sub(r"\\\n\s*", "", text)
    stages = {}
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            stage = stages[name] = Stage(name, parent)
        elif stages:
            stage.steps.append((word, rest.strip()))
    return stages


def lineage(stages, name):
    """A stage and what it stands on, the root first."""
    out = []
    while name in stages:
        out.insert(0, stages[name])
        name = stages[name].parent
    return out


def environment(stages, name):
    """ENV of a stage and of those it stands on."""
    out = {}
    for stage in lineage(stages, name):
        for text in stage.all("ENV"):
            out |= dict(pair.split("=", 1) for pair in text.split())
    return out


def ignored(root):
    """A test of what .dockerignore keeps out of the build, for the patterns that ours has."""
    lines = [x for x in (root / ".dockerignore").read_text().splitlines() if x and x[0] != "#"]

    def test(path):
        out = False
        for line in lines:
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            above = ["/".join(parts[: k + 1]) for k in range(len(parts))]
            names = parts if "**/" in line else above
            if any(fnmatch.fnmatch(n, pattern) for n in names):
                out = not line.startswith("!")
        return out

    return test


def copy(root, text, target):
    """What a COPY of the build's context does, into the folder `target`."""
    *sources, where = text.split()
    out = ignored(root)
    for source in sources:
        path = root / source
        place = target / where
        if path.is_dir():
            for file in (p for p in path.rglob("*") if p.is_file() or p.is_symlink()):
                name = file.relative_to(root).as_posix()
                if not out(name) and "__pycache__" not in name:
                    to = place / file.relative_to(path)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, to, follow_symlinks=False)
        else:
            assert not out(source), f"{source} is in .dockerignore"
            to = place / path.name if where.endswith("/") or where == "." else place
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)


def listed(text):
    """The words of a JSON form."""
    return json.loads(text)
