// Walking the points of a chart, the video beside the scatter, its filters, and playing videos in step.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const addresses = new Map();

  // A preview as an address that every browser can seek in; decoded when it is first wanted.
  function preview(id) {
    if (!data.previews[id]) return "";
    if (!addresses.has(id)) {
      const bytes = Uint8Array.from(atob(data.previews[id].split(",")[1]), (char) => char.charCodeAt(0));
      addresses.set(id, URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })));
    }
    return addresses.get(id);
  }

  const players = [...document.querySelectorAll("video.player")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      if (!target.getAttribute("src")) target.src = preview(target.dataset.video);
    }
  }, { rootMargin: "400px" });
  players.forEach((player) => seen.observe(player));

  function play(player, wanted) {
    if (!player.getAttribute("src")) player.src = preview(player.dataset.video);
    if (wanted) player.play().catch(() => {}); else player.pause();
    player.closest("button").setAttribute("aria-pressed", String(wanted));
  }
  for (const player of players) {
    const button = player.closest("button");
    button.addEventListener("click", () => play(player, button.getAttribute("aria-pressed") !== "true"));
  }

  const together = document.getElementById("together");
  if (together) {
    together.addEventListener("click", () => {
      const start = together.getAttribute("aria-pressed") !== "true";
      together.setAttribute("aria-pressed", String(start));
      together.textContent = start ? "Pause all" : "Play all in step";
      for (const player of players) {
        if (start && player.readyState) player.currentTime = 0;
        play(player, start);
      }
    });
  }

  // One stop of the Tab key a chart; the arrow keys go from point to point.
  const shown = (mark) => !mark.classList.contains("off") && mark.getBoundingClientRect().width + mark.getBoundingClientRect().height > 0;
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const marks = [...chart.querySelectorAll("[data-mark]")];
    const stops = marks.filter((mark) => mark.getAttribute("aria-label"));
    const left = (mark) => { const box = mark.getBoundingClientRect(); return box.x + box.width / 2; };
    let order = null;
    stops.forEach((mark) => mark.setAttribute("tabindex", "-1"));
    const first = stops.find((mark) => data.videos[mark.dataset.mark]) || stops[0];
    if (first) first.setAttribute("tabindex", "0");
    // By kind of mark and place: points first, as a reader of the chart goes.
    const rank = (mark) => (data.pairs[mark.dataset.mark] ? 1 : mark.dataset.mark.startsWith("front-") ? 2 : 0);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const end = { Home: 0, End: -1 }[event.key];
      if (step === undefined && end === undefined) return;
      event.preventDefault();
      order = order || [...stops].sort((a, b) => rank(a) - rank(b) || left(a) - left(b));
      const here = order.filter(shown);
      if (!here.length) return;
      const now = here.indexOf(document.activeElement);
      const next = step === undefined ? here.at(end) : here[(now + step + here.length) % here.length];
      stops.forEach((mark) => mark.setAttribute("tabindex", "-1"));
      next.setAttribute("tabindex", "0");
      next.focus();
    });
    window.addEventListener("resize", () => { order = null; });
  }

  // A link to a row opens the table that holds it.
  function open(id) {
    const target = id && document.getElementById(id);
    for (let box = target && target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    if (target) { target.scrollIntoView({ block: "center" }); target.focus({ preventScroll: true }); }
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link || link.getAttribute("href") === "#main") return;
    event.preventDefault();
    const id = decodeURIComponent(link.getAttribute("href").slice(1));
    history.replaceState(null, "", `#${id}`);
    open(id);
  });
  open(decodeURIComponent(location.hash.slice(1)));

  const scatter = document.querySelector("[data-chart=repository]");
  if (scatter) explore(scatter, document.getElementById("panel"));

  function explore(chart, panel) {
    const marks = [...chart.querySelectorAll("[data-mark]")];
    let current = "";

    function element(name, text, attributes = {}) {
      const made = document.createElement(name);
      if (text) made.textContent = text;
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    }

    function picture(id, label) {
      const figure = element("figure");
      const row = document.getElementById(id);
      const poster = row && row.querySelector("img");
      const link = row && row.querySelector("th a");
      const source = preview(id) || (data.videos[id].origin !== "static" && link ? link.getAttribute("href") : "");
      if (source) {
        const video = element("video", "", { controls: "", loop: "", playsinline: "", "aria-label": label });
        video.muted = true;
        if (poster) video.poster = poster.src;
        video.src = source;
        figure.append(video);
        if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
      } else if (poster) figure.append(element("img", "", { src: poster.src, alt: label }));
      const caption = element("figcaption", label);
      if (data.videos[id].prompt) caption.append(element("br"), element("span", data.videos[id].prompt));
      figure.append(caption);
      return figure;
    }

    function show(id) {
      if (id === current) return;
      const pair = data.pairs[id];
      if (!pair && !data.videos[id]) return;
      current = id;
      if (pair) {
        const title = element("p");
        title.append(element("strong", `${pair.kind} pair`), ` ${pair.why}`);
        panel.replaceChildren(title, picture(pair.winner, `Winner: ${data.videos[pair.winner].said}`), picture(pair.rejected, `Rejected: ${data.videos[pair.rejected].said}`));
      } else panel.replaceChildren(picture(id, data.videos[id].said));
      const ends = pair ? [id, pair.winner, pair.rejected] : [id, ...Object.keys(data.pairs).filter((name) => [data.pairs[name].winner, data.pairs[name].rejected].includes(id))];
      for (const mark of marks) mark.classList.toggle("lit", ends.includes(mark.dataset.mark));
    }
    for (const kind of ["pointerover", "focusin"]) {
      chart.addEventListener(kind, (event) => {
        const mark = event.target.closest("[data-mark]");
        if (mark) show(mark.dataset.mark);
      });
    }

    const origins = [...document.querySelectorAll("#origins button")];
    const prompt = document.getElementById("prompt"), kind = document.getElementById("kind");
    function filter() {
      const off = new Set(origins.filter((one) => one.getAttribute("aria-pressed") !== "true").map((one) => one.dataset.origin));
      const visible = (id) => {
        const video = data.videos[id];
        return video && !off.has(video.origin) && (prompt.value === "all" || video.group === null || video.group === prompt.value);
      };
      let videos = 0, pairs = 0;
      const counted = new Set();
      for (const mark of marks) {
        const id = mark.dataset.mark, pair = data.pairs[id];
        let on = true;
        if (pair) on = (kind.value === "all" || kind.value === pair.kind) && visible(pair.winner) && visible(pair.rejected);
        else if (id.startsWith("front-")) on = id.endsWith(`-${prompt.value}`);
        else on = visible(id);
        mark.classList.toggle("off", !on);
        if (on && !counted.has(id)) { counted.add(id); if (pair) pairs += 1; else if (data.videos[id]) videos += 1; }
      }
      document.getElementById("counted").textContent = `${videos} videos, ${pairs} pairs`;
    }
    origins.forEach((one) => one.addEventListener("click", () => {
      one.setAttribute("aria-pressed", String(one.getAttribute("aria-pressed") !== "true"));
      filter();
    }));
    [prompt, kind].forEach((one) => one.addEventListener("change", filter));
    filter();
  }
})();
