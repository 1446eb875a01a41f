"use strict";
for (const button of document.querySelectorAll("button.together")) {
  const videos = [...button.closest(".compared").querySelectorAll("video")];
  button.addEventListener("click", async () => {
    const stop = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!stop));
    button.textContent = stop ? "Play in step" : "Pause";
    if (stop) {
      videos.forEach((video) => video.pause());
      return;
    }
    videos.forEach((video) => { video.currentTime = 0; });
    await Promise.allSettled(videos.map((video) => video.play()));
  });
}
