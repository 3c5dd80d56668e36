// Arrow keys, Home, End and swipes go through the slides; n shows the notes.
const slides = [...document.querySelectorAll("section")], root = document.documentElement.style;
function fit() {
  for (const slide of document.querySelectorAll(".slide:not(.figure)"))
    for (let size = 100; size >= 30; size -= 5) {
      slide.style.fontSize = size + "%";
      if (slide.scrollHeight <= slide.clientHeight + 1 && slide.scrollWidth <= slide.clientWidth + 1) break;
    }
}
function go(step) {
  const here = slides.findIndex((slide) => slide.getBoundingClientRect().bottom > innerHeight / 2);
  slides[Math.max(0, Math.min(slides.length - 1, here + step))].scrollIntoView();
}
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1,
    Home: -1e4, End: 1e4 }[event.key];
  if (event.ctrlKey || event.altKey || event.metaKey || !(step || event.key === "n")) return;
  event.preventDefault();
  if (step) return go(step);
  document.body.classList.toggle("noted");
  fit();
});
let from = 0;
addEventListener("touchstart", (event) => { from = event.touches[0].clientX; }, { passive: true });
addEventListener("touchend", (event) => {
  const way = event.changedTouches[0].clientX - from;
  if (Math.abs(way) > 60) go(way < 0 ? 1 : -1);
});
addEventListener("resize", fit);
addEventListener("beforeprint", () => { root.setProperty("--w", "1280px"); root.setProperty("--h", "720px"); fit(); });
addEventListener("afterprint", () => { root.removeProperty("--w"); root.removeProperty("--h"); fit(); });
fit();
