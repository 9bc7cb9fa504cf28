"""The words that perturbations put in and bias is counted by: our own lists, or a file's.

`words.yaml`, beside this file, holds them and says what each is; all are facts collected for this project, none is
crfm-helm's. Where HELM's numbers are wanted, give its lists: a YAML or JSON file of the same form, in which what is
left out stays ours.

    words = load_words("helm_words.json")       # {"groups": {"gender": {"female": [...], "male": [...]}}}
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from jaxft.errors import UsageError, nearest

_OWN = Path(__file__).with_name("words.yaml")
OWN = "own lists"


@dataclasses.dataclass(frozen=True, eq=False)
class Words:
    """The lists; `own` names those that are ours. Words are lower case, but for contractions of I.

    keyboard: {letter: its neighbours}. contractions: {short: long}. misspellings, dialect: {word: what it becomes}.
    gender_pronouns, gender_terms: (neutral, female, male). names: {group: {gender: names}}. groups: {category: {group:
    words}}. targets: {kind: words}.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    keyboard: dict[str, str]
    contractions: dict[str, str]
    misspellings: dict[str, list[str]]
    dialect: dict[str, list[str]]
    gender_pronouns: list[tuple[str, str, str]]
    gender_terms: list[tuple[str, str, str]]
    names: dict[str, dict[str, list[str]]]
    groups: dict[str, dict[str, list[str]]]
    targets: dict[str, list[str]]
    own: frozenset[str] = frozenset()

    def source(self, *names: str) -> str:
        """Return whose the lists of these names are: what a result says of itself."""
        return OWN if any(name in self.own for name in names) else "lists as given"


@functools.lru_cache(maxsize=1)
def own_words() -> Words:
    """Return our lists."""
    values = _read(_OWN)
    return _made(values, str(_OWN), frozenset(values))


def load_words(path: str | Path | None = None) -> Words:
    """Return the lists of a YAML or JSON file, ours where it has none; ours alone without a file.

    Raises UsageError for a file that cannot be read, an unknown list (naming the nearest) and one of the wrong form.
    """
    ours = own_words()
    if path is None:
        return ours
    given = _read(Path(path).expanduser())
    names = [field.name for field in dataclasses.fields(Words) if field.name != "own"]
    for name in given:
        if name not in names:
            raise UsageError(f"{path}: unknown list {name!r}{nearest(name, names)}")
    values = {name: getattr(ours, name) for name in names} | given
    return _made(values, str(path), frozenset(set(names) - set(given)))


def _made(values: Mapping[str, Any], place: str, own: frozenset[str]) -> Words:
    from pydantic import TypeAdapter, ValidationError

    keyboard = values["keyboard"]
    if isinstance(keyboard, Sequence) and not isinstance(keyboard, str):
        values = {**values, "keyboard": neighbours(keyboard)}
    try:
        words = TypeAdapter(Words).validate_python({**values, "own": own})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(f"{place}: {where}: {problem['msg']}") from None
    lists: dict[str, Sequence[str]] = {f"targets.{kind}": listed for kind, listed in words.targets.items()}
    for category, groups in words.groups.items():
        if len(groups) < 2:
            raise UsageError(f"{place}: groups.{category}: one group alone cannot be compared; give two or more")
        lists |= {f"groups.{category}.{group}": listed for group, listed in groups.items()}
    for name, listed in lists.items():
        if not listed:
            raise UsageError(f"{place}: {name} has no words")
    return words


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"words: {path} cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: broken YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: a word file is a mapping of lists")
    return found


def neighbours(rows: Sequence[str]) -> dict[str, str]:
    """Return for each key those that touch it; each row lies half a key to the right of the one above.

    >>> neighbours(["qwe", "asd"])["w"]
    'qeas'
    """
    places = {key: (y, x + y / 2) for y, row in enumerate(rows) for x, key in enumerate(row)}
    return {
        key: "".join(
            other
            for other, (v, u) in places.items()
            if other != key and abs(v - y) <= 1 and abs(u - x) <= (1 if v == y else 0.5)
        )
        for key, (y, x) in places.items()
    }
