"use strict";
(() => {
  const root = document.documentElement;
  const gallery = document.getElementById("gallery");
  root.dataset.ready = "true";
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
  if (!gallery) return;

  // -- order, search, size
  const cards = [...gallery.children];
  const tools = document.getElementById("tools");
  const choice = document.getElementById("sort");
  const find = document.getElementById("find");
  const size = document.getElementById("size");
  tools.hidden = false;
  document.querySelectorAll(".js").forEach((e) => { e.hidden = false; });
  tools.addEventListener("submit", (event) => event.preventDefault());
  const known = new Set([...choice.options].map((o) => o.value));

  function sort(by) {
    const key = (card) => card.getAttribute("data-" + by);
    const rank = (card) => (key(card) === null ? Infinity : Number(key(card)));
    const given = (card) => Number(card.dataset.given);
    const before = by === "name"
      ? (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", {numeric: true}) || given(a) - given(b)
      : (a, b) => { const x = rank(a), y = rank(b); return x === y ? given(a) - given(b) : x - y; };
    gallery.append(...cards.slice().sort(before));
    choice.value = by;
    root.dataset.sorted = by;
  }

  function follow() {
    const asked = /^#sort=([a-z0-9-]+)$/.exec(location.hash);
    if (asked && known.has(asked[1])) sort(asked[1]);
  }

  choice.addEventListener("change", () => {
    sort(choice.value);
    try { history.replaceState(null, "", "#sort=" + choice.value); } catch { /* the order holds all the same */ }
  });
  addEventListener("hashchange", follow);
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    for (const card of cards) {
      const words = [...card.querySelectorAll("h3,.target,.where,.path")].map((e) => e.textContent).join(" ");
      card.hidden = !words.toLowerCase().includes(wanted);
    }
  });
  size.addEventListener("input", () => root.style.setProperty("--size", size.value + "px"));

  // -- the value under the pointer, at the same place in all maps of the image
  const hex = gallery.dataset.palette;
  const palette = new Map();
  for (let i = 0; i * 6 < hex.length; i++) palette.set(parseInt(hex.slice(i * 6, i * 6 + 6), 16), i);
  const top = palette.size - 1;
  const pixels = new WeakMap();

  function decoded(image) {
    if (!pixels.has(image)) {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.imageSmoothingEnabled = false;
      context.drawImage(image, 0, 0);
      pixels.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return pixels.get(image);
  }

  function level(r, g, b) {
    const exact = palette.get((r << 16) | (g << 8) | b);
    if (exact !== undefined) return exact;
    let best = 0, least = Infinity;
    for (const [colour, i] of palette) {
      const d = (r - (colour >> 16)) ** 2 + (g - ((colour >> 8) & 255)) ** 2 + (b - (colour & 255)) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  function reading(frame, x, y) {
    const data = decoded(frame.querySelector("img"));
    const column = Math.min(data.width - 1, Math.floor(x * data.width));
    const row = Math.min(data.height - 1, Math.floor(y * data.height));
    const at = 4 * (row * data.width + column);
    const i = level(data.data[at], data.data[at + 1], data.data[at + 2]);
    const value = (2 * i / top - 1) * Number(frame.dataset.limit);
    const sign = i === 0 ? "≤ " : i === top ? "≥ " : "";
    return sign + (value ? value.toPrecision(3) : "0").replace("-", "−");
  }

  function readings(frame) {
    let place = frame.querySelector("output");
    if (!place) {
      place = document.createElement("output");
      frame.append(place);
    }
    return place;
  }

  function show(frame, x, y) {
    frame.dataset.x = x;
    frame.dataset.y = y;
    for (const other of frame.closest(".card").querySelectorAll(".frame")) {
      let dot = other.querySelector("i");
      if (!dot) { dot = document.createElement("i"); other.append(dot); }
      dot.hidden = false;
      dot.style.left = 100 * x + "%";
      dot.style.top = 100 * y + "%";
      if (other.dataset.limit) {
        const place = readings(other);
        place.setAttribute("aria-live", other === document.activeElement ? "polite" : "off");
        place.classList.toggle("up", y > 0.6);
        place.textContent = reading(other, x, y);
      }
    }
  }

  function hide(card) {
    card.querySelectorAll(".frame i").forEach((dot) => { dot.hidden = true; });
    card.querySelectorAll("output").forEach((place) => { place.textContent = ""; });
  }

  function point(event) {
    const frame = event.target.closest(".frame");
    if (!frame) return;
    const box = frame.getBoundingClientRect();
    const inside = (v) => Math.min(0.9999, Math.max(0, v));
    show(frame, inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height));
  }

  gallery.addEventListener("pointermove", point);
  gallery.addEventListener("pointerdown", point);
  for (const card of cards) card.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(card); });
  for (const frame of gallery.querySelectorAll(".frame[data-limit]")) {
    frame.tabIndex = 0;
    readings(frame);
    frame.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (!step) return;
      event.preventDefault();
      const image = frame.querySelector("img");
      const moved = (v, by, count) => Math.min(0.9999, Math.max(0, Number(v ?? 0.5) + by / count));
      show(frame, moved(frame.dataset.x, step[0], image.naturalWidth), moved(frame.dataset.y, step[1], image.naturalHeight));
    });
  }
  follow();
})();
