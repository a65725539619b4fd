"""A bigram language model of digits and its lexicon, made by counting texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def arpa(texts: Iterable[str], words: Iterable[str] = DIGITS) -> str:
    """An ARPA file: bigrams with absolute discounting, unigrams with one added to each count."""
    sentences = [["<s>", *text.split(), "</s>"] for text in texts]
    unigrams = Counter(dict.fromkeys((*words, "</s>"), 1))
    unigrams.update(word for sentence in sentences for word in sentence[1:])
    bigrams = Counter(pair for sentence in sentences for pair in pairwise(sentence))
    histories = Counter(first for first, _ in bigrams.elements())
    followers = Counter(first for first, _ in bigrams)
    total, discount = sum(unigrams.values()), 0.5

    def backoff(word: str) -> float:
        if not histories[word]:
            return 0.0
        seen = sum(unigrams[second] for first, second in bigrams if first == word) / total
        return math.log10(discount * followers[word] / histories[word] / max(1 - seen, 1e-3))

    lines = ["\\data\\", f"ngram 1={len(unigrams) + 2}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines += ["-4\t<unk>", f"-99\t<s>\t{backoff('<s>'):.5f}"]
    lines += [f"{math.log10(n / total):.5f}\t{word}\t{backoff(word):.5f}" for word, n in unigrams.items()]
    lines += ["", "\\2-grams:"]
    lines += [
        f"{math.log10((count - discount) / histories[first]):.5f}\t{first} {second}"
        for (first, second), count in bigrams.items()
    ]
    return "\n".join([*lines, "", "\\end\\", ""])


def lexicon(words: Iterable[str] = DIGITS) -> str:
    """A lexicon file of the words' letters."""
    return "".join(f"{word}\t{' '.join(word)} |\n" for word in words)
