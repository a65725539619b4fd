// One clip: its audio, what it looks like, and its words, which light up as they are heard.

const data = JSON.parse(document.getElementById("data").textContent);
const PACE = 40, WIDEST = 8000; // pixels of a second, and of a whole recording
const UNSURE = 0.8; // words of a lower confidence are underlined

const make = (parent, name, attributes, text) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {}))
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  if (text !== undefined && text !== null) node.textContent = text;
  parent?.appendChild(node);
  return node;
};
const clock = seconds => seconds < 60 ? `${seconds.toFixed(2)} s` : `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
const share = value => `${(100 * value).toFixed(1)} %`;

const bytesOf = place => {
  const packed = document.getElementById(`audio-${place}`)?.textContent;
  return packed && Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
};
const samplesOf = async bytes => {
  const context = new OfflineAudioContext(1, 1, 16000);
  return (await context.decodeAudioData(bytes.slice().buffer)).getChannelData(0);
};

let playing = null; // the audio of the clip that is heard

class Player {
  constructor(place, host) {
    this.clip = data.clips[place];
    this.box = make(host, "div", { class: "player" });
    this.timed = []; // nodes with the time in which they are lit
    this.facts();
    this.sound(place);
    if (this.clip.error) make(this.box, "p", { class: "message" }, `${this.clip.error.stage}: ${this.clip.error.code}. ${this.clip.error.message || ""}`);
    this.pictures(place);
    this.words();
    this.differences();
  }

  facts() {
    const { clip } = this, facts = make(this.box, "div", { class: "facts" });
    const tell = (name, value) => {
      if (value === undefined || value === null) return;
      const fact = make(facts, "span", {}, `${name} `);
      make(fact, "b", {}, value);
    };
    tell("shard", clip.shard);
    tell("length", clip.seconds && clock(clip.seconds));
    tell("WER", clip.wer !== undefined ? share(clip.wer) : null);
    tell("confidence", clip.confidence !== undefined ? share(clip.confidence) : null);
    tell("alignment", clip.alignment);
    for (const [name, value] of Object.entries(clip.groups || {})) tell(name, value);
    tell("labels", (clip.labels || []).map(([label, score]) => `${label} ${share(score)}`).join(", ") || clip.label);
  }

  sound(place) {
    const { sound } = this.clip;
    this.bytes = sound.inside ? bytesOf(place) : null;
    if (this.bytes) this.url = URL.createObjectURL(new Blob([this.bytes], { type: "audio/ogg" }));
    const source = this.url || sound.href;
    if (source) {
      this.audio = make(this.box, "audio", { controls: "", preload: "metadata", src: source, "aria-label": `Audio of ${this.clip.id}` });
      this.audio.onplay = () => { if (playing !== this.audio) playing?.pause(); playing = this.audio; this.follow(); };
      this.audio.onseeked = () => this.show();
    }
    if (sound.note) {
      const note = make(this.box, "p", { class: "note" }, sound.inside ? `Inside the page: ${sound.note}. ` : `No audio inside the page: ${sound.note}. `);
      if (sound.href) make(note, "a", { href: sound.href }, "Open the file");
    }
  }

  // What is drawn over time: wave, spectrogram, speakers.
  pictures(place) {
    const { clip } = this, turns = clip.turns || [];
    this.length = Math.min(clip.seconds || 0, data.longest);
    if (!this.bytes && !turns.length) return;
    this.strip = make(this.box, "div", { class: "strip" }); // long recordings are wider than the page
    this.picture = make(this.strip, "div", { class: "picture", style: `min-width:${Math.min(WIDEST, PACE * this.length)}px` });
    if (this.bytes) {
      const wave = make(this.picture, "canvas", { class: "wave", role: "img", "aria-label": "waveform" });
      const spectrogram = make(this.picture, "canvas", { class: "spectrogram", role: "img", "aria-label": "spectrogram, 0 to 8 kHz" });
      samplesOf(this.bytes).then(samples => {
        this.samples = samples;
        this.draw = () => { drawWave(wave, samples); drawSpectrogram(spectrogram, samples); this.box.dataset.drawn = ""; };
        this.draw();
      }, problem => make(this.box, "p", { class: "message" }, `This browser cannot decode Ogg Opus: ${problem.message}`));
    }
    const people = [...new Set(turns.map(([speaker]) => speaker))].sort();
    people.forEach((person, number) => {
      const lane = make(this.picture, "div", { class: "lane" });
      for (const [speaker, start, end] of turns) {
        if (speaker !== person) continue;
        const left = 100 * start / this.length, width = 100 * (Math.min(end, this.length) - start) / this.length;
        const bar = make(lane, "i", { style: `left:${left}%;width:${width}%;background:var(--c${number % 10})` });
        this.timed.push([bar, start, end]);
      }
      make(lane, "span", {}, person);
    });
    const ruler = make(this.picture, "div", { class: "ruler" });
    const parts = Math.max(4, Math.round(this.picture.clientWidth / 200));
    for (let part = 0; part <= parts; part++) make(ruler, "span", {}, clock(part / parts * this.length));
    if (!this.audio) return;
    this.cursor = make(this.picture, "div", { class: "cursor", style: "left:0" });
    this.picture.onclick = event => {
      const box = this.picture.getBoundingClientRect();
      this.seek((event.clientX - box.left) / box.width * this.length);
    };
  }

  words() {
    for (const [name, title] of [["words", "Heard"], ["aligned", "Reference, aligned with the audio"]]) {
      const words = this.clip[name];
      if (!words?.length) continue;
      const part = make(this.box, "div");
      make(part, "h4", {}, title);
      const line = make(part, "div", { class: "spoken", "data-words": name });
      for (const word of words) {
        line.append(this.word(word), " ");
      }
    }
  }

  word([text, start, end, confidence]) {
    const unsure = confidence !== undefined && confidence !== null && confidence < UNSURE;
    const told = confidence === undefined || confidence === null ? "" : `, confidence ${share(confidence)}`;
    const node = make(null, "button", { type: "button", class: unsure ? "unsure" : "", title: `${start.toFixed(2)} to ${end.toFixed(2)} s${told}` }, text);
    node.onclick = () => { this.seek(start); this.audio?.play(); };
    this.timed.push([node, start, end]);
    return node;
  }

  // What was said above, what is heard below; the words below can be clicked where they are whole.
  differences() {
    const pieces = this.clip.pieces || [];
    if (!pieces.length) return;
    const part = make(this.box, "div");
    make(part, "h4", {}, "Reference above, transcript below");
    const letters = Math.max(...pieces.map(piece => piece[1].length)) < 2;
    const line = make(part, "div", { class: letters ? "words letters" : "words" });
    const words = this.clip.words || [];
    const heard = pieces.filter(piece => piece[2]).map(piece => piece[2]);
    const whole = heard.length <= words.length && heard.every((word, at) => word === words[at][0]);
    let at = 0;
    for (const [kind, said, given] of pieces) {
      const piece = make(line, "span", { class: kind });
      make(piece, "b", {}, said);
      const below = make(piece, "b", {}, whole && given ? null : given);
      if (whole && given) below.append(this.word(words[at++]));
    }
  }

  seek(seconds) {
    if (!this.audio) return;
    this.audio.currentTime = Math.max(0, seconds);
    this.show();
  }

  show() {
    const now = this.audio.currentTime;
    if (this.cursor) this.cursor.style.left = `${100 * Math.min(1, now / this.length)}%`;
    for (const [node, start, end] of this.timed) node.classList.toggle("now", start <= now && now < end);
  }

  follow() {
    this.show();
    if (this.cursor) {
      const at = this.cursor.offsetLeft - this.strip.scrollLeft;
      if (at < 0 || at > this.strip.clientWidth) this.strip.scrollLeft = this.cursor.offsetLeft - 40;
    }
    if (!this.audio.paused && this.box.isConnected) requestAnimationFrame(() => this.follow());
  }

  close() {
    this.audio?.pause();
    if (this.url) URL.revokeObjectURL(this.url);
  }
}
