"""Perturbed texts: what robustness and fairness are measured on, as crfm-helm 0.5.16 defines it.

Each is a pure function of (texts, seed, the row's id): the draws come from Python's `Random`, seeded and called as HELM
calls it, so that with HELM's word lists the texts are HELM's (experiments/benchmarks/helm_parity.py). The texts are
those of one example, so that a name becomes the same name in all of them. HELM's own quirk is kept: dialect and gender
replace words that have a character on both sides, so a text's first word stays.

>>> perturb("typos", ["Amanda baked cookies for Jerry."], seed=0, row="test:1")
['Amqnsa bakwc dookies ror Jerry.']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from jaxft.errors import UsageError, nearest
from jaxft.evaluation.helm.words import Words, own_words

Change = Callable[[Sequence[str], Random, Words], list[str]]


class Perturbation(NamedTuple):
    """kind: "robustness" or "fairness". references: whether references are changed too. lists: the words it needs."""

    kind: str
    change: Change
    about: str
    references: bool = False
    lists: tuple[str, ...] = ()


def perturb(name: str, texts: Sequence[str], seed: int, row: str, words: Words | None = None) -> list[str]:
    """Return the texts of the example `row` as the perturbation makes them; the same for the same arguments.

    `words`: the lists to use, ours by default. Raises UsageError for an unknown perturbation, naming the nearest.
    """
    check_perturbations([name])
    random = Random(row if seed == 0 else f"{seed}{row}")  # HELM's seeding
    return PERTURBATIONS[name].change(texts, random, own_words() if words is None else words)


def check_perturbations(names: Sequence[str]) -> None:
    """Raise UsageError for the first of `names` that is no perturbation, or that is there twice."""
    for i, name in enumerate(names):
        if name not in PERTURBATIONS:
            raise UsageError(f"unknown perturbation {name!r}{nearest(name, PERTURBATIONS)}")
        if name in names[:i]:
            raise UsageError(f"the perturbation {name!r} is asked for twice")


def match_case(source: str, target: str) -> str:
    """Return `target` in lower, upper or capital letters, as `source` is written.

    >>> match_case("He", "she"), match_case("HE", "she"), match_case("I am", "I'm")
    ('She', 'SHE', "I'm")
    """
    if all(letter.islower() for letter in source):
        return target.lower()
    if all(letter.isupper() for letter in source):
        return target.upper()
    return target.capitalize() if source[0].isupper() else target


def _typos(text: str, random: Random, words: Words) -> str:
    letters = []
    for letter in text:
        lower = letter.lower()
        near = words.keyboard.get(lower)
        new = random.choice(list(near)) if near and random.random() < 0.1 else lower
        letters.append(new if letter == lower else new.upper())
    return "".join(letters)


def _lowercase(text: str, random: Random, words: Words) -> str:
    return text.lower()


def _space(text: str, random: Random, words: Words) -> str:
    return re.sub(" +", lambda _: " " * random.randint(1, 3), text)


def _extra_space(text: str, random: Random, words: Words) -> str:
    return text.replace(" ", "  ")


def _contraction(text: str, random: Random, words: Words) -> str:
    short = {long: one for one, long in words.contractions.items()}
    # Only before a space: nobody ends a sentence in "it's".
    pattern = rf"\b({_any(short)})\b "
    return re.sub(pattern, lambda m: _looked_up(m[1], short) + " ", text, flags=re.IGNORECASE | re.DOTALL)


def _expansion(text: str, random: Random, words: Words) -> str:
    pattern = rf"\b({_any(words.contractions)})\b"
    return re.sub(pattern, lambda m: _looked_up(m[0], words.contractions), text, flags=re.IGNORECASE | re.DOTALL)


def _looked_up(found: str, table: Mapping[str, str]) -> str:
    lower = {key.lower(): value for key, value in table.items()}
    return match_case(found, table.get(found) or table.get(found.lower()) or lower[found.lower()])


def _misspellings(rate: float) -> Callable[[str, Random, Words], str]:
    def change(text: str, random: Random, words: Words) -> str:
        def misspelt(m: re.Match[str]) -> str:
            return match_case(m[1], random.choice(words.misspellings[m[1]])) if random.random() < rate else m[1]

        return re.sub(rf"\b({_any(words.misspellings)})\b", misspelt, text)

    return change


def _mild_mix(text: str, random: Random, words: Words) -> str:
    for change in (_lowercase, _contraction, _misspellings(0.1), _space):
        text = change(text, random, words)
    return text


def _dialect(text: str, random: Random, words: Words) -> str:
    def spoken(m: re.Match[str]) -> str:
        random.random()  # HELM draws whether to replace, at a rate of 1
        return m[0].replace(m[1], match_case(m[1], random.choice(words.dialect[m[1].lower()])))

    return re.sub(rf"[^\w-]({_any(words.dialect)})[^\w-]", spoken, text, flags=re.IGNORECASE)


def _gender(text: str, table: Sequence[tuple[str, str, str]]) -> str:
    for _, female, male in table:

        def swapped(m: re.Match[str], female: str = female) -> str:
            return m[0].replace(m[1], match_case(m[1], female))

        text = re.sub(rf"[^\w]({re.escape(male)})[^\w]", swapped, text, flags=re.IGNORECASE)
    return text


def _person_name(texts: Sequence[str], random: Random, words: Words) -> list[str]:
    source, target = words.names["white_american"], words.names["black_american"]
    gender_of = {name: gender for gender, names in source.items() for name in names}
    swaps: dict[str, str] = {}

    def swapped(token: str) -> str:
        name = token.lower()
        if name not in swaps and name in gender_of:
            random.random()  # HELM draws whether to replace, at a rate of 1
            swaps[name] = random.choice(target[gender_of[name]])
        return match_case(token, swaps[name]) if name in swaps else token

    return ["".join(swapped(token) for token in re.split(r"([^\w])", text)) for text in texts]


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words))


def _each(change: Callable[[str, Random, Words], str]) -> Change:
    return lambda texts, random, words: [change(text, random, words) for text in texts]


PERTURBATIONS: Mapping[str, Perturbation] = {
    "typos": Perturbation(
        "robustness", _each(_typos), "one letter in ten becomes its neighbour on the keyboard", lists=("keyboard",)
    ),
    "lowercase": Perturbation("robustness", _each(_lowercase), "all in lower case"),
    "space": Perturbation("robustness", _each(_space), "one to three spaces for each space"),
    "extra_space": Perturbation("robustness", _each(_extra_space), "two spaces for each space"),
    "contraction": Perturbation("robustness", _each(_contraction), "it is > it's", lists=("contractions",)),
    "expansion": Perturbation("robustness", _each(_expansion), "it's > it is", lists=("contractions",)),
    "misspellings": Perturbation(
        "robustness", _each(_misspellings(0.2)), "one in five of the words often misspelt", lists=("misspellings",)
    ),
    "mild_mix": Perturbation(
        "robustness",
        _each(_mild_mix),
        "HELM's own mixture: lower case, contractions, misspellings (one in ten), spaces",
        lists=("contractions", "misspellings"),
    ),
    "dialect": Perturbation(
        "fairness", _each(_dialect), "standard to African American English words", True, ("dialect",)
    ),
    "gender_pronouns": Perturbation(
        "fairness",
        _each(lambda text, random, words: _gender(text, words.gender_pronouns)),
        "male to female pronouns",
        True,
        ("gender_pronouns",),
    ),
    "gender_terms": Perturbation(
        "fairness",
        _each(lambda text, random, words: _gender(text, words.gender_terms)),
        "male to female terms",
        True,
        ("gender_terms",),
    ),
    "person_name": Perturbation(
        "fairness", _person_name, "first names of white to those of black Americans, gender kept", True, ("names",)
    ),
}
# HELM's leaderboards use mild_mix, and dialect, pronouns and names; the issue at hand is each kind of noise by itself.
DEFAULT = ("typos", "lowercase", "space", "contraction", "expansion", "dialect", "gender_pronouns", "gender_terms",
           "person_name")  # fmt: skip
