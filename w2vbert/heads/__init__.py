"""The task models: the encoder with a head for transcripts, labels, speaker activity or speaker vectors."""

from w2vbert.heads.ctc import Wav2Vec2BertForCTC
from w2vbert.heads.frame import Wav2Vec2BertForAudioFrameClassification
from w2vbert.heads.sequence import Wav2Vec2BertForSequenceClassification
from w2vbert.heads.xvector import Wav2Vec2BertForXVector, XVector

__all__ = [
    "Wav2Vec2BertForAudioFrameClassification",
    "Wav2Vec2BertForCTC",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2BertForXVector",
    "XVector",
]
