"use strict";
// Videos that play in step, with one button and one slider for all of them; for the pages of `review` and `study`.
//
// `videos` gives those that are shown now, `shown` whether they can be seen. Where a person wants less motion, nothing
// plays before it is asked to. Videos of different lengths begin again together, when the longest has ended.
function inStep(button, slider, videos, shown) {
  let wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  const length = () => Math.min(...videos().map((video) => video.duration || Infinity));

  function play() {
    button.textContent = wanted ? "Pause" : "Play";
    if (!wanted) { videos().forEach((video) => video.pause()); return; }
    if (videos().some((video) => video.readyState < 3)) return;
    videos().forEach((video) => video.play().catch(() => { /* other videos were opened meanwhile */ }));
  }

  function restart() {
    videos().forEach((video) => { if (video.readyState) video.currentTime = 0; });
    play();
  }

  function toggle() {
    wanted = !wanted;
    if (wanted && videos().some((video) => video.ended)) restart(); else play();
  }

  function seek() {
    const end = length();
    if (!Number.isFinite(end)) return;
    wanted = false;
    play();
    videos().forEach((video) => { video.currentTime = (end * slider.value) / 1000; });
  }

  function tick() {
    const end = length();
    if (shown() && videos().length && Number.isFinite(end)) {
      const [first, ...others] = videos();
      if (document.activeElement !== slider || wanted) slider.value = Math.round((1000 * first.currentTime) / end);
      if (wanted && videos().every((video) => video.ended)) restart();
      else if (wanted) {
        for (const video of others) {
          const apart = Math.abs(first.currentTime - video.currentTime) > 0.1;
          if (apart && !first.ended && !video.ended) video.currentTime = first.currentTime;
        }
      }
    }
    requestAnimationFrame(tick);
  }

  button.addEventListener("click", toggle);
  slider.addEventListener("input", seek);
  return { play, restart, toggle, begin: () => requestAnimationFrame(tick) };
}
