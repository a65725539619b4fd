// Charts where one comes to them, what leads from them to clips, and keys.

const CONFIG = {
  background: "transparent", font: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
  view: { stroke: null }, padding: 2, autosize: { type: "fit-x", contains: "padding" },
  axis: { labelColor: "var(--soft)", titleColor: "var(--soft)", gridColor: "var(--grid)", domainColor: "var(--line)", tickColor: "var(--line)", titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 11, tickSize: 4 },
  axisX: { grid: false }, axisY: { domain: false, ticks: false },
  legend: { labelColor: "var(--ink)", titleColor: "var(--soft)", labelFontSize: 12 },
};
const places = [...document.querySelectorAll("[data-chart]")];
const draw = async node => {
  const spec = data.charts[places.indexOf(node)];
  const { view } = await vegaEmbed(node, spec, { renderer: "svg", actions: false, config: CONFIG });
  view.addEventListener("click", (event, item) => { if (item?.datum?.clip_id) hear(item.datum.clip_id, item.datum.start); });
  node.dataset.drawn = "";
};
const near = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });
places.forEach(node => near.observe(node));

const links = new Map([...document.querySelectorAll("nav a")].map(link => [link.hash.slice(1), link]));
const passing = new IntersectionObserver(entries => {
  for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
}, { rootMargin: "-60px 0px -70% 0px" });
document.querySelectorAll("main section[id]").forEach(section => passing.observe(section));

for (const button of document.querySelectorAll("[data-kind]"))
  button.onclick = () => {
    kind.value = button.dataset.kind; search.value = "";
    show();
    document.getElementById("clips").scrollIntoView();
    body.querySelector(".id button")?.focus({ preventScroll: true });
  };

const step = by => {
  const buttons = [...body.querySelectorAll(".id button")], at = buttons.indexOf(document.activeElement?.closest("tr.open")?.previousSibling?.querySelector(".id button") || document.activeElement);
  const next = buttons[Math.max(0, Math.min(buttons.length - 1, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
};
const current = () => {
  const row = document.activeElement?.closest("tr");
  const clip = row?.classList.contains("open") ? row.previousSibling : row;
  return clip?.dataset.place !== undefined ? open.get(Number(clip.dataset.place)) : [...open.values()].find(player => player.audio && player.audio === playing);
};
addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA|AUDIO)$/.test(event.target.tagName) || event.target.closest(".scroll");
  const inList = event.target.closest("#clips");
  if (event.key === "/" && !typing) search.focus();
  else if (event.key === "Escape" && event.target === search) { search.value = ""; show(); }
  else if (typing && event.target !== search) return;
  else if (event.key === "ArrowDown" && inList) step(1);
  else if (event.key === "ArrowUp" && inList) step(-1);
  else if (typing || !inList) return;
  else if (event.key === "Escape") { const player = current(); if (player) { const row = player.row.previousSibling; toggle(Number(row.dataset.place)); row.querySelector(".id button").focus(); } }
  else if (event.key === " ") {
    const place = document.activeElement?.closest("tr.clip")?.dataset.place;
    const player = current() || (place !== undefined && toggle(Number(place), true));
    if (!player?.audio) return;
    player.audio.paused ? player.audio.play() : player.audio.pause();
  }
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") { const player = current(); if (!player?.audio) return; player.seek(player.audio.currentTime + (event.key === "ArrowLeft" ? -1 : 1)); }
  else return;
  event.preventDefault();
});
const redraw = () => open.forEach(player => player.draw?.());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);
