"use strict";
// The page of `magicid review`. The server keeps everything: this script shows a pair and sends votes.
(() => {
  const $ = (id) => document.getElementById(id);
  const name = $("review").dataset.name;
  const videos = [$("left"), $("right")];
  const SIDES = ["left", "right"];
  const KEYS = { ArrowLeft: "left", ArrowRight: "right", "=": "equal", x: "drop" };
  const LETTER = { left: "A", right: "B" };
  let pairs = [], history = [], at = -1, busy = false, beyond = false;
  const player = inStep($("play"), $("seek"), () => videos, () => true);

  // -- the server

  async function ask(path, body) {
    const options = body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    };
    const answer = await fetch(path, options);
    if (!answer.ok && answer.status !== 409) throw new Error(await answer.text());
    return answer.json();
  }

  function take(state) {
    pairs = state.pairs;
    history = state.history;
    if (!$("photos").querySelector("img")) {
      for (const photo of state.photos) {
        const image = document.createElement("img");
        image.src = `file/${photo}`;
        image.alt = `A photo of ${name}`;
        $("photos").append(image);
      }
      $("photos").hidden = !state.photos.length;
    }
    $("trouble").hidden = true;
  }

  function fail(error) {
    const gone = error instanceof TypeError;
    $("trouble").textContent = gone
      ? `The server does not answer. Your votes are saved; start it again: magicid review ${name}`
      : `That did not work: ${error.message}`;
    $("trouble").hidden = false;
  }

  async function guarded(work) {
    if (busy) return;
    busy = true;
    try { await work(); } catch (error) { fail(error); } finally { busy = false; }
  }

  // -- what is shown

  const open = (pair) => !pair.vote && (pair.selected || beyond);

  function firstOpen(from) {
    for (let step = 0; step < pairs.length; step += 1) {
      const index = (from + step) % pairs.length;
      if (open(pairs[index])) return index;
    }
    return -1;
  }

  function go(index) {
    at = index;
    const pair = pairs[at];
    $("pair").hidden = !pair;
    $("done").hidden = Boolean(pair);
    $("review").classList.toggle("done", !pair);
    for (const button of document.querySelectorAll("[data-choice]")) button.disabled = !pair;
    if (pair) {
      SIDES.forEach((side, n) => {
        const source = `file/${pair[side]}`;
        if (videos[n].getAttribute("src") !== source) videos[n].src = source;
      });
      player.restart();
    } else {
      videos.forEach((video) => video.removeAttribute("src"));
    }
    draw();
  }

  function draw() {
    const group = (selected) => pairs.filter((pair) => pair.selected === selected);
    const judged = (some) => some.filter((pair) => pair.vote).length;
    const [selected, missed] = [group(true), group(false)];
    const pair = pairs[at];
    const shown = pair && !pair.selected ? missed : selected;
    const what = shown === missed ? "candidates that just missed selection" : "selected pairs";
    $("progress").max = Math.max(1, shown.length);
    $("progress").value = judged(shown);
    $("count").textContent = `${judged(shown)} of ${shown.length} ${what} judged`;
    $("undo").disabled = !history.length;
    document.title = `${judged(shown)}/${shown.length} · Review: ${name}`;
    $("review").setAttribute("aria-busy", "false");
    if (!pair) {
      const rest = missed.length - judged(missed);
      $("question").textContent = pairs.length ? "Done" : "There is no pair to judge";
      $("hint").textContent = "";
      $("done-text").textContent = `All ${selected.length} selected pairs are judged.` +
        (rest ? ` ${rest} more just missed selection: what you prefer of them is added.` : "");
      $("go-on").hidden = !rest;
      return;
    }
    const identity = pair.kind === "identity";
    $("question").textContent = identity ? `Which one looks more like ${name}?` : `Which one is the better video of ${name}?`;
    $("hint").classList.toggle("said", Boolean(pair.vote));
    $("hint").textContent = pair.vote ? `${verdict(pair.vote)} Reason of the rules: ${pair.vote.why}.` : identity
      ? "Compare the face with the photos. Motion does not matter here."
      : "The same person throughout, natural motion, and what the prompt says.";
    $("prompt").textContent = pair.prompt;
    for (const button of document.querySelectorAll("[data-choice]")) {
      button.setAttribute("aria-pressed", String(Boolean(pair.vote) && pair.vote.choice === button.dataset.choice));
    }
    for (const side of SIDES) {
      $(`figure-${side}`).classList.toggle("chosen", Boolean(pair.vote) && pair.vote.choice === side);
      $(`told-${side}`).textContent = pair.vote ? scores(pair.vote.sides[side]) : "";
    }
  }

  function scores(side) {
    const values = Object.entries(side.scaled).map(([reward, value]) => `${reward} ${value.toFixed(1)}`);
    return `${side.id} (${side.origin}): ${values.join(", ")}`;
  }

  const EFFECTS = {
    confirmed: "the pair is confirmed", flipped: "the pair is turned round", equal: "no difference: the pair is left out",
    dropped: "the pair is dropped", added: "the pair is added", "added flipped": "the pair is added, turned round",
  };

  function verdict(vote) {
    const you = vote.choice in LETTER ? `You prefer ${LETTER[vote.choice]}` : "Your vote";
    return `${you}: ${EFFECTS[vote.effect]}. The scores prefer ${LETTER[vote.proposed]}.`;
  }

  // -- votes

  const vote = (choice) => guarded(async () => {
    const pair = pairs[at];
    if (!pair) return;
    take(await ask("vote", { key: pair.key, choice }));
    const before = pairs[at];
    $("last").textContent = before.vote ? `Last: ${verdict(before.vote)}` : "";
    go(firstOpen(at + 1));
  });

  const undo = () => guarded(async () => {
    const last = history[history.length - 1];
    if (!last) return;
    take(await ask("undo", { id: last.id }));
    $("last").textContent = "Taken back.";
    go(pairs.findIndex((pair) => pair.key === last.key));
  });

  function step(by) {
    const shown = pairs.map((pair, index) => index).filter((index) => pairs[index].selected || beyond || pairs[index].vote);
    if (!shown.length) return;
    const place = shown.indexOf(at);
    go(shown[place < 0 ? (by < 0 ? shown.length - 1 : 0) : (place + by + shown.length) % shown.length]);
  }

  function goOn() {
    beyond = true;
    go(firstOpen(0));
    $("main").focus();
  }

  // -- both videos

  function measured(event) {
    const video = event.target;
    video.parentElement.classList.toggle("small-picture", video.videoWidth < 160);
    document.querySelector(".stage").classList.toggle("wide-pictures", video.videoWidth > 1.1 * video.videoHeight);
  }

  videos.forEach((video) => {
    video.addEventListener("canplay", player.play);
    video.addEventListener("loadedmetadata", measured);
    video.addEventListener("error", () => {
      if (video.getAttribute("src")) fail(new Error(`a video cannot be shown. Start again: magicid review ${name}`));
    });
  });

  // -- what a person does

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const onSlider = event.target === $("seek");
    const onButton = event.target instanceof HTMLButtonElement;
    if (key in KEYS && !(onSlider && key.startsWith("Arrow"))) vote(KEYS[key]);
    else if (key === "u") undo();
    else if (key === "n" || key === "p") step(key === "n" ? 1 : -1);
    else if (key === " " && !onButton) player.toggle();
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-choice]").forEach((button) => {
    button.addEventListener("click", () => vote(button.dataset.choice));
  });
  $("undo").addEventListener("click", undo);
  $("go-on").addEventListener("click", goOn);
  // Another tab may have voted meanwhile.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) guarded(async () => { take(await ask("state")); draw(); });
  });

  guarded(async () => {
    take(await ask("state"));
    beyond = !pairs.some((pair) => pair.selected && !pair.vote) && pairs.some((pair) => !pair.selected && pair.vote);
    go(firstOpen(0));
    player.begin();
  });
})();
