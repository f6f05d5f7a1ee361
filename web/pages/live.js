// Shows what changed without a reload: the page is asked for again and its parts are swapped. When: at each event of the
// stream that the page names, or else every so many milliseconds.
"use strict";

const FIRST_PAUSE_MS = 1000, LONGEST_PAUSE_MS = 30000;
const state = document.getElementById("live");
const { stream: path, everyMs } = state.dataset;
let pause = FIRST_PAUSE_MS, refreshing = false, again = false;

function listen() {
  const stream = new EventSource(path);
  stream.addEventListener("purchases", () => { pause = FIRST_PAUSE_MS; refresh(); });
  stream.addEventListener("error", () => {
    state.textContent = "Reconnecting …";
    // A stream that was refused is closed for good; one that broke connects again by itself.
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(listen, pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  });
}

async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(location.pathname, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    pause = FIRST_PAUSE_MS;
    tell(path ? "Live: new purchases appear by themselves." : "Live: this page is kept up to date.");
    if (!path) setTimeout(refresh, Number(everyMs));
  } catch {
    tell("Reconnecting …");
    setTimeout(refresh, pause);
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
  refreshing = false;
  if (again) { again = false; refresh(); }
}

// Only what is new is said, or a screen reader would say it again and again.
function tell(text) {
  if (state.textContent !== text) state.textContent = text;
}

function swap(page) {
  for (const before of document.querySelectorAll("[data-part]")) {
    const after = page.getElementById(before.id);
    if (!before.isEqualNode(after)) before.replaceWith(after);
  }
}

path ? listen() : refresh();
