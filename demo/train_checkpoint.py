"""Teach a small CTC checkpoint the demo's spoken digits, on one CPU thread in half an hour.

    python demo/train_checkpoint.py --start CHECKPOINT --digits FOLDER --output demo/checkpoint

It hears strings of 1 to 12 digits: from espeak-ng, in other voices than the corpus', and, where `--digits`
names a folder of recorded digits (`labels.tsv` with the columns path, speaker and text), put together from
those too. Needs espeak-ng and the extra `test` (transformers is the trainer).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio.functional
from espeak import RATE, Voice, Waveform, digit_string, phrased, say
from make_corpus import SPEAKERS
from transformers import AutoProcessor, Wav2Vec2BertForCTC

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
# espeak-ng's plausible voice variants, less those that speak in the corpus.
VARIANTS = (
    *("f1", "f2", "f4", "m1", "m3", "m5", "m7", "m8", "Alex", "Alicia", "Andy", "Annie", "Denis"),
    *("Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike"),
    *("Nguyen", "adam", "anika", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris"),
    *("caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave", "john", "linda", "max"),
    *("michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    *("shelby", "steph", "travis", "victor", "zac"),
)
LONGEST = 12  # words; longer clips than these are understood because positions are relative
FRAMES_PER_BATCH = 4_000  # of 20 ms, padding included
PEAK_LEARNING_RATE = 1.5e-3
WARM_UP = 0.1  # of the training time

Example = tuple[np.ndarray, list[int]]  # features (frames, 160) in half precision, token ids


class Recordings:
    """Strings put together from recordings of single words, one speaker each."""

    def __init__(self, folder: Path) -> None:
        self.words: dict[str, dict[str, list[Waveform]]] = defaultdict(lambda: defaultdict(list))
        with (folder / "labels.tsv").open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                samples, rate = soundfile.read(folder / row["path"], dtype="float32")
                self.words[row["speaker"]][row["text"]].append(resample(samples, rate, RATE))
        self.speakers = sorted(self.words)

    def string(self, text: str, rng: np.random.Generator) -> Waveform:
        takes = self.words[rng.choice(self.speakers)]
        parts: list[Waveform] = []
        for word in text.split():
            parts.append(takes[word][rng.integers(len(takes[word]))])
            parts.append(np.zeros(int(rng.uniform(0, 0.4) * RATE), np.float32))
        tempo = rng.uniform(0.87, 1.15)  # pitch goes with it
        return resample(np.concatenate(parts), RATE, round(RATE / tempo / 100) * 100)


def resample(samples: Waveform, old: int, new: int) -> Waveform:
    resampled: Waveform = torchaudio.functional.resample(torch.from_numpy(samples), old, new).numpy()
    return resampled


def synthetic(text: str, rng: np.random.Generator) -> Waveform:
    """`text` in a voice that the corpus lacks."""
    name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    voice = Voice(name, speed=int(rng.integers(90, 200)), pitch=int(rng.integers(25, 76)))
    return say(phrased(text, rng, group=(1, 6)), voice)


def disturbed(samples: Waveform, rng: np.random.Generator) -> Waveform:
    """The clip as a worse microphone hears it: amid silence, band-limited, noisy; each at random."""
    if rng.random() < 0.5:
        before, after = rng.uniform(0, 0.6, size=2) * RATE
        samples = np.pad(samples, (int(before), int(after)))
    if rng.random() < 0.25:
        samples = resample(resample(samples, RATE, RATE // 2), RATE // 2, RATE)
    if rng.random() < 0.6:
        noise = rng.standard_normal(len(samples)).astype(np.float32)
        if rng.random() < 0.5:
            noise = np.cumsum(
                noise - np.convolve(noise, np.full(64, 1 / 64, np.float32), "same")
            )  # low-pitched
        level = np.std(samples) * 10 ** (-rng.uniform(5, 40) / 20)
        samples = samples + (noise * (level / np.std(noise))).astype(np.float32)
    return samples


def make_examples(
    count: int, recordings: Recordings | None, processor: Any, rng: np.random.Generator
) -> list[Example]:
    examples = []
    for index in range(count):
        text = digit_string(rng, int(rng.integers(1, LONGEST + 1)))
        recorded = recordings is not None and index % 3 == 0
        samples = recordings.string(text, rng) if recordings and recorded else synthetic(text, rng)
        features = processor(disturbed(samples, rng), sampling_rate=RATE, return_attention_mask=False)
        ids = processor.tokenizer(text).input_ids
        examples.append((np.asarray(features["input_features"][0], np.float16), ids))
    return examples


def batches(examples: list[Example], rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
    """Endless padded batches of clips of about one length, in random order."""
    while True:
        packed: list[list[Example]] = [[]]
        for example in sorted(examples, key=lambda example: len(example[0]) + rng.uniform(-20, 20)):
            if (len(packed[-1]) + 1) * len(example[0]) > FRAMES_PER_BATCH:
                packed.append([])
            packed[-1].append(example)
        for index in rng.permutation(len(packed)):
            yield collate(packed[index])


def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
    features = [torch.from_numpy(features).float() for features, _ in examples]
    labels = [torch.tensor(ids) for _, ids in examples]
    return {
        "input_features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(f)) for f in features], True
        ).long(),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def train(model: Any, data: Iterator[dict[str, torch.Tensor]], minutes: float) -> None:
    """AdamW, the learning rate rising and then falling linearly over the given time."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    start = time.monotonic()
    model.train()
    losses: list[float] = []
    for step in itertools.count(1):
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
        loss = model(**next(data)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"{done:4.0%}  step {step}  loss {np.mean(losses[-100:]):.3f}", flush=True)
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", type=Path, required=True, help="checkpoint to go on from")
    parser.add_argument("--digits", type=Path, help="folder of recorded digits with labels.tsv")
    parser.add_argument("--output", type=Path, required=True, help="folder for the new checkpoint")
    parser.add_argument("--examples", type=int, default=9_000, help="strings to train on")
    parser.add_argument("--minutes", type=float, default=28, help="time spent on training, data making aside")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    assert not {speaker.partition("+")[2] for speaker in SPEAKERS} & set(VARIANTS)
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # transformers draws its span masks from the global generator
    rng = np.random.default_rng(arguments.seed)

    processor = AutoProcessor.from_pretrained(arguments.start)
    model = Wav2Vec2BertForCTC.from_pretrained(arguments.start)
    recordings = Recordings(arguments.digits) if arguments.digits else None
    examples = make_examples(arguments.examples, recordings, processor, rng)
    train(model, batches(examples, rng), arguments.minutes)
    model.save_pretrained(arguments.output)
    processor.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
