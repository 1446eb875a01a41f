"use strict";
// The page of a study. It runs from the disk, without a network: answers are kept in the browser until they are saved.
(() => {
  const $ = (id) => document.getElementById(id);
  const study = JSON.parse($("study").textContent);
  const KEPT = `magicid-study-${study.study}`;
  const NEITHER = "none";
  let said = fresh("");
  let at = 0, videos = [], trail = [];
  const player = inStep($("play"), $("seek"), () => videos, () => !$("set").hidden);

  // -- what was answered

  function fresh(rater) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { rater: { id, name: rater }, begun: new Date().toISOString(), order: {}, answers: {} };
  }

  // Several people may rate in one browser: what each of them said is kept under the name that they gave.
  const place = (rater) => `${KEPT}/${rater}`;

  function recall(rater) {
    try {
      const kept = JSON.parse(localStorage.getItem(place(rater)));
      if (kept && kept.rater && kept.answers && kept.order) return kept;
    } catch { /* nothing is kept, or the browser keeps nothing */ }
    return null;
  }

  function latest() {
    try {
      return localStorage.getItem(KEPT) ?? "";
    } catch {
      return "";
    }
  }

  function keep() {
    try {
      localStorage.setItem(place(said.rater.name), JSON.stringify(said));
      localStorage.setItem(KEPT, said.rater.name);
      $("saved").textContent = "";
    } catch {
      $("saved").textContent = "This browser keeps nothing: please finish without closing the page.";
    }
  }

  const name = (set, question) => `${set.id}/${question.id}`;
  const unanswered = (set) => study.questions.filter((question) => !said.answers[name(set, question)]);
  const complete = () => study.sets.filter((set) => !unanswered(set).length).length;

  function shuffled(items) {
    const result = [...items];
    for (let last = result.length - 1; last > 0; last -= 1) {
      const other = Math.floor(Math.random() * (last + 1));
      [result[last], result[other]] = [result[other], result[last]];
    }
    return result;
  }

  // Every rater sees the sets and, in each, the videos in an order of their own, which stays theirs.
  function prepare() {
    if (!said.sets) said.sets = shuffled(study.sets.map((set) => set.id));
    for (const set of study.sets) if (!said.order[set.id]) said.order[set.id] = shuffled(set.videos);
    study.sets.sort((one, other) => said.sets.indexOf(one.id) - said.sets.indexOf(other.id));
    keep();
  }

  // -- what is shown

  function show(section) {
    for (const id of ["intro", "set", "end"]) $(id).hidden = id !== section;
    window.scrollTo(0, 0);
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const letter = (index) => String.fromCharCode(65 + index);

  function open(index) {
    at = index;
    trail = [];
    const set = study.sets[at];
    $("prompt").textContent = set.prompt || "(not given)";
    const order = said.order[set.id];
    videos = order.map((file, n) => {
      const video = element("video", { muted: true, playsInline: true, preload: "auto", src: `media/${file}`, tabIndex: -1 });
      video.setAttribute("aria-label", `Video ${letter(n)}`);
      video.addEventListener("canplay", player.play);
      video.addEventListener("loadedmetadata", () => {
        video.parentElement.classList.toggle("small-picture", video.videoWidth < 160);
        $("stage").classList.toggle("upright", video.videoWidth < 1.1 * video.videoHeight);
      });
      video.addEventListener("error", () => { $("saved").textContent = `Video ${letter(n)} cannot be played here.`; });
      return video;
    });
    $("stage").replaceChildren(...videos.map((video, n) =>
      element("figure", {}, video, element("b", { className: "letter", textContent: letter(n) }))));
    $("stage").classList.toggle("two", videos.length === 2);
    $("questions").replaceChildren(...study.questions.map((question) => field(set, question, order)));
    $("back").disabled = at === 0;
    show("set");
    draw();
    $("title").focus();
  }

  function field(set, question, order) {
    const choices = [...order.map((file, n) => [file, letter(n)]), [NEITHER, "No difference"]];
    return element("fieldset", { id: question.id },
      element("legend", { textContent: question.title }, element("span", { textContent: question.text })),
      element("div", { className: "choices" }, ...choices.map(([value, text]) => {
        const input = element("input", { type: "radio", name: question.id, value });
        input.checked = said.answers[name(set, question)]?.choice === value;
        input.addEventListener("change", () => answer(question, value));
        return element("label", {}, input, text);
      })));
  }

  function draw() {
    const set = study.sets[at];
    const open = unanswered(set);
    $("title").textContent = `Set ${at + 1} of ${study.sets.length}`;
    $("progress").value = complete();
    for (const question of study.questions) {
      $(question.id).classList.toggle("answered", !open.includes(question));
      $(question.id).classList.toggle("now", open[0] === question);
    }
    $("next").disabled = open.length > 0;
    $("next").firstChild.textContent = at + 1 < study.sets.length ? "Next set " : "Finish ";
  }

  function answer(question, choice) {
    const set = study.sets[at];
    said.answers[name(set, question)] = { choice, time: new Date().toISOString() };
    trail.push(question);
    keep();
    draw();
  }

  function pick(choice) {
    const question = unanswered(study.sets[at])[0];
    if (!question) return;
    for (const input of $(question.id).querySelectorAll("input")) input.checked = input.value === choice;
    answer(question, choice);
  }

  function undo() {
    const question = trail.pop();
    if (!question) return;
    delete said.answers[name(study.sets[at], question)];
    for (const input of $(question.id).querySelectorAll("input")) input.checked = false;
    keep();
    draw();
  }

  function next() {
    if (unanswered(study.sets[at]).length) return;
    if (at + 1 < study.sets.length) open(at + 1); else finish();
  }

  function finish() {
    const missing = study.sets.length - complete();
    $("end-text").textContent = missing
      ? `${missing} of ${study.sets.length} sets are not answered to the end. You can save all the same.`
      : `All ${study.sets.length} sets are answered.`;
    $("after").hidden = true;
    videos.forEach((video) => video.pause());
    show("end");
    $("thanks").focus();
  }

  function invite() {
    const kept = recall($("rater").value.trim());
    $("start").textContent = kept && Object.keys(kept.answers).length ? "Go on" : "Start";
  }

  function save() {
    const answers = Object.entries(said.answers).map(([key, value]) => {
      const [set, question] = key.split("/");
      return { set, question, ...value };
    });
    const whole = {
      kind: "magicid study answers", format: study.format, study: study.study, rater: said.rater, begun: said.begun,
      saved: new Date().toISOString(), order: said.order, answers,
    };
    const link = element("a", {
      href: URL.createObjectURL(new Blob([JSON.stringify(whole, null, 2)], { type: "application/json" })),
      download: `answers-${said.rater.id.slice(0, 8)}.json`,
    });
    link.click();
    URL.revokeObjectURL(link.href);
    $("after").hidden = false;
  }

  // -- what a person does

  document.addEventListener("keydown", (event) => {
    if ($("set").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const key = event.key.toLowerCase();
    const onButton = event.target instanceof HTMLButtonElement;
    const index = key.length === 1 ? key.charCodeAt(0) - 97 : -1;
    if (index >= 0 && index < videos.length) pick(said.order[study.sets[at].id][index]);
    else if (key === "=") pick(NEITHER);
    else if (key === "u") undo();
    else if (key === " " && !onButton && event.target.type !== "radio") player.toggle();
    else if (key === "enter" && !onButton) next();
    else return;
    event.preventDefault();
  });
  $("start").addEventListener("click", () => {
    const rater = $("rater").value.trim();
    // Where the browser keeps nothing, the open page still does.
    if (said.rater.name !== rater || !Object.keys(said.order).length) said = recall(rater) ?? fresh(rater);
    prepare();
    const left = study.sets.findIndex((set) => unanswered(set).length);
    if (left < 0) finish(); else open(left);
  });
  $("back").addEventListener("click", () => open(at - 1));
  $("next").addEventListener("click", next);
  $("return").addEventListener("click", () => open(study.sets.length - 1));
  $("save").addEventListener("click", save);
  $("other").addEventListener("click", () => {
    $("rater").value = "";
    invite();
    show("intro");
    $("rater").focus();
  });
  $("rater").addEventListener("input", invite);
  $("questions").addEventListener("submit", (event) => event.preventDefault());

  for (const photo of study.photos) $("photos").append(element("img", { src: `media/${photo}`, alt: "A photo of the person" }));
  $("photos").hidden = !study.photos.length;
  $("rater").value = latest();
  invite();
  player.begin();
})();
