// The list of clips: searched, filtered, sorted; each opens into a player.

const people = clip => new Set((clip.turns || []).map(([speaker]) => speaker)).size || undefined;
// Numbers as they are shown: shares in percent.
const COLUMNS = [
  { name: "clip", key: "id", value: clip => clip.id },
  { name: "text", key: "text", value: clip => clip.text },
  { name: "WER", key: "wer", value: clip => clip.wer === undefined ? undefined : 100 * clip.wer, unit: " %" },
  { name: "confidence", key: "confidence", value: clip => clip.confidence === undefined ? undefined : 100 * clip.confidence, unit: " %" },
  { name: "alignment", key: "alignment", value: clip => clip.alignment, digits: 2 },
  { name: "label", key: "label", value: clip => clip.label },
  { name: "score", key: "score", value: clip => clip.score === undefined ? undefined : 100 * clip.score, unit: " %" },
  { name: "speakers", key: "speakers", value: people, digits: 0 },
  { name: "length", key: "seconds", value: clip => clip.seconds, unit: " s", digits: 2 },
];
const TEXT = ["id", "text", "label"];
const shown = COLUMNS.filter(column => data.clips.some(clip => column.value(clip) !== undefined));
const table = document.getElementById("list"), body = table.tBodies[0];
const search = document.getElementById("search"), kind = document.getElementById("kind"), heard = document.getElementById("heard");
const open = new Map(); // place of a clip -> its player
let order = null; // { column, falling }

const everything = data.clips.map(clip => [
  clip.id, clip.text, clip.reference, clip.label, clip.error && Object.values(clip.error).join(" "), ...Object.values(clip.groups || {}),
].filter(Boolean).join("\n").toLowerCase());

const numbers = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
const field = (clip, name) => {
  const column = COLUMNS.find(one => one.key === name || one.name.toLowerCase() === name);
  if (column) return column.value(clip);
  if (name === "kind") return clip.kinds.map(one => `${one} ${data.kinds[one]}`).join(" ");
  if (name === "error") return clip.error?.code;
  if (name === "shard") return clip.shard;
  return Object.entries(clip.groups || {}).find(([group]) => group.toLowerCase() === name)?.[1];
};
const holds = (place, term) => {
  const parts = term.match(/^([\w.-]+)(<=|>=|<|>|=)(.+)$/);
  if (!parts) return everything[place].includes(term);
  const [, name, sign, wanted] = parts, value = field(data.clips[place], name);
  if (value === undefined || value === null) return false;
  if (typeof value === "number") return numbers[sign](sign === "=" ? Math.round(value * 100) / 100 : value, Number(wanted));
  return sign === "=" ? value.toLowerCase().includes(wanted) : numbers[sign](Number(value), Number(wanted));
};

const wanted = () => {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const places = [...data.clips.keys()].filter(place => {
    const clip = data.clips[place];
    return (!kind.value || clip.kinds.includes(kind.value)) && (!heard.checked || clip.sound.inside) && terms.every(term => holds(place, term));
  });
  if (!order) return places;
  const { column, falling } = order, sign = falling ? -1 : 1;
  const rank = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b);
  return places.sort((one, other) => {
    const [a, b] = [one, other].map(place => column.value(data.clips[place]));
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // without a value: last
    return sign * rank(a, b);
  });
};

const cell = (row, column, clip) => {
  const value = column.value(clip), number = typeof value === "number";
  const node = make(row, "td", { class: TEXT.includes(column.key) ? column.key : "number" });
  if (column.key === "text") make(node, "span", clip.error ? { class: "failed" } : {}, clip.error ? clip.error.code : value);
  else if (value !== undefined) {
    if (number) node.dataset.name = column.name;
    node.textContent = number ? value.toFixed(column.digits ?? 1) + (column.unit || "") : value;
  }
};

const show = () => {
  const places = wanted();
  for (const [place, player] of open) if (!places.includes(place)) { player.close(); open.delete(place); }
  const rows = places.flatMap(place => {
    const clip = data.clips[place], row = make(null, "tr", { class: "clip", "data-place": place });
    const id = make(row, "td", { class: "id" });
    const button = make(id, "button", { type: "button", "aria-expanded": open.has(place), class: clip.sound.inside ? "" : "silent" }, clip.id);
    make(id, "span", { class: "kinds" }, clip.kinds.map(one => data.kinds[one]).join(" · "));
    for (const column of shown.slice(1)) cell(row, column, clip);
    row.onclick = event => { if (event.target === button || !getSelection().toString()) toggle(place); };
    return open.has(place) ? [row, open.get(place).row] : [row];
  });
  if (!rows.length) { const row = make(null, "tr"); make(row, "td", { class: "none", colspan: shown.length }, "No clip is like that."); rows.push(row); }
  body.replaceChildren(...rows);
  document.getElementById("count").textContent = `${places.length} of ${data.clips.length} clips`;
  for (const head of table.tHead.rows[0].cells) {
    const mine = order && head.dataset.key === order.column.key;
    if (mine) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
};

const rowOf = place => body.querySelector(`tr.clip[data-place="${place}"]`);
const toggle = (place, still) => {
  const row = rowOf(place);
  if (open.has(place)) {
    if (still) return open.get(place);
    open.get(place).close();
    open.get(place).row.remove();
    open.delete(place);
  } else {
    const details = make(null, "tr", { class: "open" });
    row.after(details);
    const player = new Player(place, make(details, "td", { colspan: shown.length }));
    player.row = details;
    open.set(place, player);
  }
  row.querySelector(".id button").setAttribute("aria-expanded", open.has(place));
  return open.get(place);
};

// Opens the clip of this id, from wherever on the page, and plays it.
const hear = (id, seconds) => {
  const place = data.clips.findIndex(clip => clip.id === id);
  if (place < 0) return;
  if (!rowOf(place)) { search.value = kind.value = ""; heard.checked = false; show(); }
  const player = toggle(place, true);
  rowOf(place).scrollIntoView({ block: "start" });
  rowOf(place).querySelector(".id button").focus({ preventScroll: true });
  if (seconds !== undefined) player.seek(seconds);
  player.audio?.play().catch(() => {}); // a browser may want a click first
};

const head = make(table.tHead, "tr");
for (const column of shown) {
  const th = make(head, "th", { scope: "col", "data-key": column.key, class: TEXT.includes(column.key) ? column.key : "number" });
  make(th, "button", { type: "button" }, column.name).onclick = () => {
    const mine = order?.column === column;
    order = mine && order.falling === (TEXT.includes(column.key) ? true : false) ? null
      : { column, falling: mine ? !order.falling : !TEXT.includes(column.key) };
    show();
  };
}
for (const input of [search, kind, heard]) input.addEventListener("input", show);
search.form.onsubmit = event => event.preventDefault();
show();
