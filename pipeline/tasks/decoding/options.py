"""The options of decoding."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.tasks.base import CHANGES_OUTPUT


class TranscriptOptions(BaseModel):
    """How logits become words."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, title="decoding")

    # Of these two files the contents belong to the table, not the places: see `DecodingFiles.digests`.
    lexicon: str | None = Field(
        None,
        description="restrict beam search to these words: a file with a word and its tokens on each line",
    )
    language_model: str | None = Field(
        None,
        description="n-gram language model for beam search: an ARPA file or a KenLM binary",
    )
    lm_weight: float = Field(
        2.0, description="weight of the language model", json_schema_extra=CHANGES_OUTPUT
    )
    word_score: float = Field(
        0.0, description="score added for each word in beam search", json_schema_extra=CHANGES_OUTPUT
    )
    beam_size: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="number of hypotheses that beam search keeps; unset: 50 with a lexicon, a language model "
        "or nbest above 1, else greedy decoding",
        json_schema_extra=CHANGES_OUTPUT,
    )
    nbest: int = Field(
        1,
        ge=1,
        le=100_000,
        description="number of hypotheses per clip, with scores",
        json_schema_extra=CHANGES_OUTPUT,
    )
    align: bool = Field(
        False,
        description="align the reference text (ref_text) with the audio: write when each word is said and a "
        "score of how well the two agree",
        json_schema_extra=CHANGES_OUTPUT,
    )

    @model_validator(mode="after")
    def _nbest_within_the_beam(self) -> TranscriptOptions:
        if self.beam is not None and self.nbest > self.beam:
            raise ValueError(f"nbest: {self.nbest} hypotheses cannot come from a beam of {self.beam}")
        return self

    @property
    def beam(self) -> int | None:
        """Hypotheses that beam search keeps; None: decoding is greedy."""
        asked = self.lexicon or self.language_model or self.nbest > 1
        return self.beam_size or (50 if asked else None)
