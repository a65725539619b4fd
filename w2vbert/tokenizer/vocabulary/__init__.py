"""The tokens that there are: those of a vocabulary, and those added to it."""

from w2vbert.tokenizer.vocabulary.added import AddedToken, TokenSplitter
from w2vbert.tokenizer.vocabulary.ids import Vocabulary

__all__ = ["AddedToken", "TokenSplitter", "Vocabulary"]
