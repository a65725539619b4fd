"""Which members of a tar belong together.

A clip is an audio member, and its stem, the name without the ending, its key. A member belongs to the clip
with the longest stem that its own name begins with, before a dot. So both conventions hold: WebDataset's, in
which the key ends at the first dot (`x.wav`, `x.txt`, `x.en.txt`, `x.seg.json`), and keys with dots in them
(`spk.01.wav`, `spk.01.txt`), which are never a neighbour's. A clip to which nothing belongs takes what stands
under a key that its stem begins with and that is no clip itself (`0.txt` for `0.left.wav` and `0.right.wav`),
or under its own name in a folder without audio (`txts/0.txt` for `wavs/0.wav`), if only one clip has it.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.corpus.readers.audio import AUDIO_EXTENSIONS
from pipeline.corpus.readers.tar.archive import Archive, Member, NotAtHandError
from pipeline.storage import StorageError

METADATA = ("txt", "json")
# Transcripts and metadata beyond this are not what their extension says.
_METADATA_BYTES = 8 << 20
_OTHER_BYTES = 64 << 10
_LOOSE_BYTES = 64 << 20  # held of members whose audio has not come
_ENTRY_BYTES = 500  # about what such a member costs besides its bytes

# Bytes, a member that they can be read of later, or why there are none.
Content = bytearray | Member | Exception


@dataclass(eq=False, slots=True)
class Sample:
    """An audio member, and by extension what belongs to it; `audio` is None where only such was found."""

    stem: str
    extension: str = ""
    audio: Content | None = None
    beside: dict[str, Content] = field(default_factory=dict)


class Samples:
    """Joins the members of an archive to samples.

    Args:
        window: hold so many bytes of audio while more of its members may come. None: read nothing before all
            members are known, so that they may stand anywhere; the archive must be seekable.

    Attributes:
        problem: why the archive could not be read to its end.
        apart: members that belong to a sample and came when it had gone on, or had one of their extension.
    """

    def __init__(self, archive: Archive, window: int | None) -> None:
        self.problem: Exception | None = None
        self.apart: list[str] = []
        self._archive = archive
        self._deferred = window is None
        self._window = float("inf") if window is None else window
        self._waiting: deque[Sample] = deque()
        self._held = 0
        self._stems: set[str] = set()  # of all audio so far
        self._newest: dict[str, Sample] = {}  # of those that wait, by stem
        self._gone = False  # some went on before all members were known
        self._mixed = False  # not all members are audio
        self._loose = _Loose()

    def of(self, members: Iterable[Member]) -> Iterator[Sample]:
        """The samples in the order of their audio, then those without."""
        try:
            for member in members:
                stem, extension = _split(member.name)
                if extension in AUDIO_EXTENSIONS:
                    self._stems.add(stem)
                    while self._waiting and self._held + member.size > self._window:
                        self._gone = True
                        yield self._hand_on(self._waiting.popleft())
                    self._add_audio(member, stem, extension)
                elif member.link is None or extension in METADATA:  # a link may lead to a folder
                    self._add_beside(member, stem, extension)
                if self.problem is not None:
                    break
        except Exception as problem:  # decoders of damaged bytes raise what they like
            self.problem = problem
        yield from self._rest()

    def read(self, content: Content, extension: str) -> bytearray:
        """Raises what stands in the way; NotAtHandError where nothing is damaged."""
        if isinstance(content, Exception):
            raise content
        if isinstance(content, Member):
            return self._archive.read(content, _most(extension))
        return content

    def _keep(self, member: Member, extension: str) -> Content:
        return member if self._deferred else self._load(member, extension)

    def _load(self, member: Member, extension: str) -> Content:
        try:
            return self.read(member, extension)
        except NotAtHandError as problem:
            return problem
        except Exception as problem:
            self.problem = problem  # a stream cannot be read on behind it
            return problem

    def _add_audio(self, member: Member, stem: str, extension: str) -> None:
        sample = Sample(stem, extension, self._keep(member, extension), self._loose.take(stem))
        self._held += _held(sample.audio)
        self._newest[stem] = sample
        self._waiting.append(sample)

    def _add_beside(self, member: Member, stem: str, extension: str) -> None:
        self._mixed = True
        content = self._keep(member, extension)
        sample = self._newest.get(stem)
        if sample is not None and extension not in sample.beside:
            sample.beside[extension] = content
        else:
            self.apart += self._loose.add(stem, extension, content)

    def _hand_on(self, sample: Sample) -> Sample:
        self._held -= _held(sample.audio)
        if self._newest.get(sample.stem) is sample:
            del self._newest[sample.stem]
        for stem in self._loose.beginning_with(sample.stem):
            between = [prefix for prefix in _prefixes(stem) if len(prefix) > len(sample.stem)]
            if self._stems.isdisjoint([stem, *between]):
                _give(sample, self._loose.take(stem), stem[len(sample.stem) + 1 :])
        if not sample.beside and sample.audio is not None:
            for prefix in _prefixes(sample.stem):
                if prefix not in self._stems and (shared := self._loose.share(prefix)):
                    _give(sample, shared)
                    break
        return sample

    def _rest(self) -> Iterator[Sample]:
        """What waits, and what found no audio: by now all members are known."""
        rest = deque(self._hand_on(sample) for sample in self._waiting)
        self._waiting.clear()
        if not self._gone:
            _join_folders(rest, self._loose)
        if isinstance(self.problem, StorageError):
            # Done without what would have come, they would stay so.
            for sample in rest:
                if sample is rest[-1] or (self._mixed and not sample.beside):
                    sample.audio = self.problem
        for stem in self._loose.stems():
            if not self._stems.isdisjoint([stem, *_prefixes(stem)]):
                self.apart += [f"{stem}.{extension}" for extension in self._loose.take(stem)]
        for stem in sorted(self._loose.stems(), key=lambda stem: len(_prefixes(stem))):
            if beside := self._loose.take(stem):
                rest.append(self._hand_on(Sample(stem, beside=beside)))
        while rest:
            yield rest.popleft()


class Preview(Samples):
    """Samples without their audio."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive, None)

    def _keep(self, member: Member, extension: str) -> Content:
        if extension in AUDIO_EXTENSIONS:
            return NotAtHandError("audio is not read here")
        return self._load(member, extension)


class _Loose:
    """Members of which no audio has come, by their name without the last extension."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Content]] = {}
        self._bytes = 0
        self._beginning: dict[str, dict[str, None]] = {}  # by what their names begin with, before a dot
        self._shared: set[str] = set()

    def add(self, stem: str, extension: str, content: Content) -> list[str]:
        """The names of those that there is no room for any more."""
        self._members.setdefault(stem, {})[extension] = content
        for prefix in _prefixes(stem):
            self._beginning.setdefault(prefix, {})[stem] = None
        self._bytes += _held(content)
        dropped = []
        while self._bytes > _LOOSE_BYTES:
            oldest = next(iter(self._members))
            dropped += [f"{oldest}.{extension}" for extension in self.take(oldest)]
        return dropped

    def take(self, stem: str) -> dict[str, Content]:
        """By extension."""
        taken = self._members.pop(stem, {})
        self._bytes -= sum(_held(content) for content in taken.values())
        for prefix in _prefixes(stem) if taken else ():
            del self._beginning[prefix][stem]
            if not self._beginning[prefix]:
                del self._beginning[prefix]
        return taken

    def share(self, stem: str) -> dict[str, Content]:
        """As `take`, and they stay for others."""
        if stem in self._members:
            self._shared.add(stem)
        return self._members.get(stem, {})

    def stems(self) -> list[str]:
        """Of those that nobody has."""
        return [stem for stem in self._members if stem not in self._shared]

    def extensions(self, stem: str) -> list[str]:
        return list(self._members[stem])

    def beginning_with(self, stem: str) -> list[str]:
        """Stems that begin with this one and a dot."""
        return list(self._beginning.get(stem, ()))


def _held(content: Content | None) -> int:
    """Bytes in memory, about."""
    return len(content) + _ENTRY_BYTES if isinstance(content, bytearray) else 0


def _give(sample: Sample, contents: dict[str, Content], before: str = "") -> None:
    for extension, content in contents.items():
        name = f"{before}.{extension}" if before else extension
        # x.wav.txt is the text of x.wav.
        sample.beside.setdefault(name.removeprefix(f"{sample.extension}."), content)


def _join_folders(samples: Collection[Sample], loose: _Loose) -> None:
    """Gives samples that have nothing what stands under their path but for one folder, without doubt."""
    stems = loose.stems()
    if not stems or all(sample.beside for sample in samples):
        return
    with_audio = {posixpath.dirname(sample.stem) for sample in samples}
    counts = Counter(path for sample in samples for path in _but_one_folder(sample.stem))
    alone = {path: sample for sample in samples for path in _but_one_folder(sample.stem) if counts[path] == 1}
    claims: dict[tuple[Sample, str], list[str]] = defaultdict(list)
    for stem in stems:
        for own in (stem, *_prefixes(stem)) if posixpath.dirname(stem) not in with_audio else ():
            fitting = {alone[path] for path in _but_one_folder(own) if path in alone}
            if fitting:
                claims[fitting.pop(), stem[len(own) + 1 :]] += [stem] if not fitting else []
                break
    for (sample, before), found in claims.items():
        extensions = [extension for stem in found for extension in loose.extensions(stem)]
        if not sample.beside and len(set(extensions)) == len(extensions):
            for stem in found:
                _give(sample, loose.take(stem), before)


def _but_one_folder(stem: str) -> set[str]:
    parts = stem.split("/")
    return {stem, *("/".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts) - 1))}


def _prefixes(stem: str) -> list[str]:
    """What stands before each dot of its last part, the longest first."""
    folder, base = posixpath.split(stem)
    parts = base.split(".")
    return [posixpath.join(folder, ".".join(parts[:end])) for end in range(len(parts) - 1, 0, -1)]


def _split(name: str) -> tuple[str, str]:
    """(stem, extension) at the last dot of the base name."""
    folder, base = posixpath.split(name)
    stem, dot, extension = base.rpartition(".")
    return posixpath.join(folder, stem if dot else base), extension.lower() if dot else ""


def _most(extension: str) -> int | None:
    """The largest size that is read of what has this extension."""
    last = extension.rpartition(".")[2]
    if last in AUDIO_EXTENSIONS:
        return None
    return _METADATA_BYTES if last in METADATA else _OTHER_BYTES


def is_audio(name: str) -> bool:
    return _split(name)[1] in AUDIO_EXTENSIONS
