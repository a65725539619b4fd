"""What a model is told: the published fields (`config`), what they can be (`checks`), and files of them."""

from w2vbert.config.config import ProblemType, Wav2Vec2BertConfig
from w2vbert.config.files import CONFIG_NAME
from w2vbert.fields import ConfigError

__all__ = ["CONFIG_NAME", "ConfigError", "ProblemType", "Wav2Vec2BertConfig"]
