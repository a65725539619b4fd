"""Give the demo's checkpoint three companions on the same encoder: labels, speaker activity and x-vectors.

    python demo/train_heads.py [FOLDER]        # needs espeak-ng; FOLDER defaults to demo/

Writes FOLDER/classify, FOLDER/diarize and FOLDER/embed, in ten minutes on one CPU thread. The
encoder is frozen, so it hears everything once, and the heads learn from its hidden states.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espeak import Voice, Waveform, digit_string, phrased, say
from make_corpus import SPEAKERS
from make_meeting import Turn, converse
from torch import Tensor, nn

from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
    Wav2Vec2BertModel,
)
from w2vbert.heads.losses import clip_loss, frame_loss
from w2vbert.model import Encoding
from w2vbert.packing import Packed
from w2vbert.pretrained.model import PreTrainedModel

BACKBONE = Path(__file__).parent / "checkpoint"
SEED = 1

# "en" and not "en-gb", for which espeak-ng 1.51 ignores the variant: any "en-gb+..." is its plain male voice.
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
# espeak-ng's variants by what one hears, less those of the corpus and those that sound the same as another.
VARIANTS = {
    "female": ("Alicia", "anika", "belinda", "f1", "f2", "grandma", "steph", "steph2"),
    "male": (
        *("Alex", "Andy", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Marco", "Mario", "Michael", "Mike"),
        *("antonio", "boris", "david", "ed", "gustave", "m1", "m5", "m7", "max", "michel", "miguel", "pablo"),
        *("paul", "quincy", "rob", "robert", "sandro", "victor"),
    ),
}
# Voices that only the measurements of measure_heads.py hear.
HELD_OUT = {"female": ("Annie", "aunty", "f4"), "male": ("Lee", "john", "m3", "m8", "travis")}

CLIPS = 3_200
CONVERSATIONS = 240
FRAME_S = SeamlessM4TFeatureExtractor().frame_s

States = Tensor  # (frames, layers + 1, width) in half precision: what the encoder makes of a recording


class Ear:
    """The frozen encoder: waveforms in, hidden states out."""

    def __init__(self, checkpoint: Path) -> None:
        self.extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
        self.model = Wav2Vec2BertModel.from_pretrained(checkpoint)

    @torch.inference_mode()
    def hear(self, samples: Waveform) -> States:
        features = Packed.from_sequences([torch.from_numpy(self.extractor.extract(samples))])
        states = self.model.encode(features, output_hidden_states=True).hidden_states
        assert states is not None
        return torch.stack([state.frames for state in states], dim=1).half()


def encoding(clips: Sequence[States]) -> Encoding:
    """What the encoder would say of the clips as one batch."""
    frames, lengths = torch.cat(tuple(clips)).float(), tuple(map(len, clips))
    states = tuple(Packed(frames[:, layer], lengths) for layer in range(frames.shape[1]))
    return Encoding(last_hidden_state=states[-1], extract_features=states[0], hidden_states=states)


def draw_voice(rng: np.random.Generator, variant: str) -> Voice:
    """A voice variant with an accent, and a pace and pitch of the moment."""
    speed, pitch = int(rng.integers(110, 181)), int(rng.integers(35, 66))
    return Voice(f"{rng.choice(ACCENTS)}+{variant}", speed, pitch)


def draw_clip(rng: np.random.Generator, variant: str) -> Waveform:
    return say(phrased(digit_string(rng, int(rng.integers(1, 9))), rng), draw_voice(rng, variant))


def draw_conversation(
    rng: np.random.Generator, variants: dict[str, tuple[str, ...]]
) -> tuple[Waveform, list[Turn], list[str]]:
    """A woman and a man in conversation, their turns, and both speakers' names, hers first."""
    voices = [draw_voice(rng, rng.choice(variants[sex])) for sex in ("female", "male")]
    samples, turns = converse(voices, rng, turns=int(rng.integers(6, 17)), silence_s=rng.uniform(0, 4))
    return samples, turns, [voice.name for voice in voices]


def activity(turns: Sequence[Turn], speakers: Sequence[str], frames: int) -> Tensor:
    """(frames, speakers): one where a speaker speaks, else zero."""
    active = torch.zeros(frames, len(speakers))
    for turn in turns:
        start, end = round(turn.start_s / FRAME_S), round(turn.end_s / FRAME_S)
        active[start:end, speakers.index(turn.speaker)] = 1
    return active


def cropped(clips: Sequence[States], frames: int, rng: np.random.Generator) -> Iterator[States]:
    """A random segment of each clip, or all of a shorter one."""
    for clip in clips:
        start = int(rng.integers(max(len(clip) - frames, 0) + 1))
        yield clip[start : start + frames]


def learn_labels(
    clips: Sequence[States], labels: Tensor, rng: np.random.Generator
) -> Wav2Vec2BertForSequenceClassification:
    """Whose voice it is, a woman's or a man's: `labels` (clips,) are indices into `VARIANTS`."""
    model = Wav2Vec2BertForSequenceClassification.from_pretrained(
        BACKBONE,
        **named(VARIANTS),
        problem_type="single_label_classification",
        use_weighted_layer_sum=True,
        classifier_proj_size=64,
    )

    def loss() -> Tensor:
        batch = rng.integers(len(clips), size=64)
        projected = model.project(encoding([clips[index] for index in batch]))
        means = torch.stack([clip.mean(dim=0) for clip in projected.split()])
        return clip_loss(model.classifier(means), labels[batch], model.config.problem_type)

    descend(model, loss, steps=400, learning_rate=1e-2)
    return model


def learn_turns(
    conversations: Sequence[States], active: Sequence[Tensor], rng: np.random.Generator
) -> Wav2Vec2BertForAudioFrameClassification:
    """In which frames each of two speaks: `active` are (frames, 2).

    A linear layer over frames of a frozen encoder cannot know who spoke first. It can hear the kind of voice,
    so that is what tells the outputs apart: first the woman, then the man.
    """
    model = Wav2Vec2BertForAudioFrameClassification.from_pretrained(
        BACKBONE,
        **named(VARIANTS),
        problem_type="multi_label_classification",
        use_weighted_layer_sum=True,
    )

    def loss() -> Tensor:
        batch = rng.integers(len(conversations), size=8)
        logits = model.frame_logits(encoding([conversations[index] for index in batch]))
        targets = nn.utils.rnn.pad_sequence([active[index] for index in batch], batch_first=True)
        return frame_loss(logits, targets, model.config.problem_type)

    descend(model, loss, steps=600, learning_rate=1e-2)
    return model


def learn_voices(clips: Sequence[States], voices: Tensor, rng: np.random.Generator) -> Wav2Vec2BertForXVector:
    """Vectors that tell voices apart: `voices` (clips,) number them from 0."""
    model = Wav2Vec2BertForXVector.from_pretrained(
        BACKBONE,
        num_labels=int(voices.max()) + 1,
        use_weighted_layer_sum=True,
        tdnn_dim=[96, 96, 96, 96, 192],
        xvector_output_dim=64,
    )
    # The published scheme suits heads of published width; here the signal would not get through.
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and not name.startswith(model.base_model_prefix):
            nn.init.kaiming_normal_(layer.weight)

    def loss() -> Tensor:
        batch = rng.integers(len(clips), size=32)
        segments = cropped([clips[index] for index in batch], 100, rng)
        delayed = [model.delay(clip) for clip in model.project(encoding(list(segments))).split()]
        statistics = torch.stack([torch.cat((clip.mean(dim=0), clip.std(dim=0))) for clip in delayed])
        objective: Tensor = model.objective(model.embed(statistics).logits, voices[batch])
        return objective

    descend(model, loss, steps=1_000, learning_rate=2e-3)
    return model


def descend(
    model: PreTrainedModel, batch_loss: Callable[[], Tensor], steps: int, learning_rate: float
) -> None:
    """AdamW on all but the encoder; the learning rate rises over a tenth of the steps, then falls to zero."""
    model.freeze_base_model()
    head = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    # The weights of the layers are four numbers that start equal: unless they hurry they stay so.
    groups = [{"params": [w], "pace": 20 if name == "layer_weights" else 1} for name, w in head.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    losses: list[float] = []
    for step in range(1, steps + 1):
        schedule = min(step / (0.1 * steps), (steps - step) / (0.9 * steps))
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * learning_rate * schedule
        loss = batch_loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"{type(model).__name__}: step {step}  loss {np.mean(losses[-100:]):.3f}", flush=True)


def named(labels: Iterable[str]) -> dict[str, Any]:
    """The fields of a configuration that name the outputs of a head."""
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {label: index for index, label in names.items()}}


def main(folder: Path) -> None:
    training = [variant for variants in VARIANTS.values() for variant in variants]
    unheard = [*sum(HELD_OUT.values(), ()), *(speaker.partition("+")[2] for speaker in SPEAKERS)]
    assert not set(training) & set(unheard)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    ear = Ear(BACKBONE)

    sexes = list(VARIANTS)
    clips, labels, voices = [], [], []
    for index in range(CLIPS):
        sex = sexes[index % len(sexes)]
        variant = str(rng.choice(VARIANTS[sex]))
        clips.append(ear.hear(draw_clip(rng, variant)))
        labels.append(sexes.index(sex))
        voices.append(training.index(variant))
    conversations, active = [], []
    for _ in range(CONVERSATIONS):
        samples, turns, speakers = draw_conversation(rng, VARIANTS)
        conversations.append(ear.hear(samples))
        active.append(activity(turns, speakers, len(conversations[-1])))

    for name, model in {
        "classify": learn_labels(clips, torch.tensor(labels), rng),
        "diarize": learn_turns(conversations, active, rng),
        "embed": learn_voices(clips, torch.tensor(voices), rng),
    }.items():
        model.save_pretrained(folder / name)
        ear.extractor.save_pretrained(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
