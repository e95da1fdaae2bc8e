"""Measures how easy the pages are to read: `python -m docs.readability`, or `make readability`."""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_NOT_PROSE = re.compile(r"^(`{3,}|~{3,}).*?^\1|^<!--.*?-->|^---\n.*?^---$", re.MULTILINE | re.DOTALL)
_ANOTHER_BLOCK = re.compile(r"^\s*([*+-] |\d+\. |> )")
_LEFT_OUT = re.compile(r"^\s*(\||#|<|\[!\[|!\[)")
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9])")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")

_SILENT = re.compile(r"(?<=[^aeiouytd])ed$|(?<=[^aeiouscgxzhl])es$|(?<=[^aeioul])e$|(?<=[aeiou]l)es?$")


class Sentence(NamedTuple):
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        return _WORD.findall(self.text)


class Page(NamedTuple):
    words: int
    sentences: int
    syllables: int

    @property
    def words_per_sentence(self) -> float:
        return self.words / self.sentences

    @property
    def flesch(self) -> float:
        """Return Flesch's reading ease: 60 to 70 is plain English, below 30 is for specialists."""
        return 206.835 - 1.015 * self.words_per_sentence - 84.6 * self.syllables / self.words


def paragraphs(markdown: str) -> Iterator[Sentence]:
    """Return each paragraph and item in one line, without code, tables, headings, pictures and addresses."""
    text = _NOT_PROSE.sub(lambda block: "\n" * block[0].count("\n"), markdown)
    start, lines = 1, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if lines and (not line.strip() or _ANOTHER_BLOCK.match(line) or _LEFT_OUT.match(line)):
            yield Sentence(start, _plain(" ".join(lines)))
            lines = []
        if line.strip() and not _LEFT_OUT.match(line):
            start = start if lines else number
            lines.append(_ANOTHER_BLOCK.sub("", line).strip())


def _plain(text: str) -> str:
    # Code in a sentence is read as one short word, which may begin it.
    return re.sub(r"<[^>]*>", "", re.sub(r"`[^`]+`", "Code", _LINK.sub(r"\1", text))).replace("**", "")


def sentences(markdown: str) -> Iterator[Sentence]:
    """Return the sentences of the text. A colon or a semicolon does not end one."""
    for line, text in paragraphs(markdown):
        yield from (Sentence(line, one) for one in _END.split(text) if _WORD.search(one))


def syllables(word: str) -> int:
    """Return about how many syllables an English word has: its groups of vowels, without silent ones; ABC has three."""
    if word.isupper():
        return len(word)
    return max(1, len(re.findall(r"[aeiouy]+", _SILENT.sub("", word.lower()))))


def measure(markdown: str) -> Page | None:
    """Return the figures of a page, or None for one without a sentence."""
    found = list(sentences(markdown))
    words = [word for sentence in found for word in sentence.words]
    return Page(len(words), len(found), sum(map(syllables, words))) if words else None


def _pages(commit: str | None) -> Iterator[tuple[str, str]]:
    if commit is None:
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
            yield path.relative_to(ROOT).as_posix(), path.read_text()
        return
    names = _git("ls-tree", "-r", "--name-only", commit, "README.md", "docs").splitlines()
    yield from ((name, _git("show", f"{commit}:{name}")) for name in names if name.endswith(".md"))


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m docs.readability", description=__doc__)
    options.add_argument("--commit", help="measure the pages of this commit")
    options.add_argument("--longest", type=int, default=10, metavar="N", help="sentences to show")
    given = options.parse_args()
    pages = dict(_pages(given.commit))
    measured = {name: page for name, text in pages.items() if (page := measure(text))}
    if not measured:
        options.error(f"No pages at {given.commit}.")
    total = Page(*(sum(column) for column in zip(*measured.values(), strict=True)))
    print(f"{'page':52}{'words':>7}{'words a sentence':>18}{'reading ease':>14}")  # noqa: T201
    for name, page in [*sorted(measured.items(), key=lambda one: one[1].flesch), ("all", total)]:
        print(f"{name:52}{page.words:7,}{page.words_per_sentence:18.1f}{page.flesch:14.1f}")  # noqa: T201
    every = [(len(one.words), name, one) for name, text in pages.items() for one in sentences(text)]
    for words, name, one in sorted(every, reverse=True)[: given.longest]:
        print(f"\n{words} words, {name}:{one.line}\n  {one.text}")  # noqa: T201


if __name__ == "__main__":
    main()
