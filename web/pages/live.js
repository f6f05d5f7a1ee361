// Shows what changed without a reload: whenever the stream says so, the page is asked for again and its parts are swapped.
"use strict";

const FIRST_PAUSE_MS = 1000, LONGEST_PAUSE_MS = 30000;
const state = document.getElementById("live");
const parts = ["purchases", "recommended", "about"];
let pause = FIRST_PAUSE_MS, refreshing = false, again = false;

function listen() {
  const stream = new EventSource(state.dataset.stream);
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
    state.textContent = "Live: new purchases appear by themselves.";
  } catch {
    state.textContent = "Reconnecting …";
    setTimeout(refresh, pause);
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
  refreshing = false;
  if (again) { again = false; refresh(); }
}

function swap(page) {
  for (const id of parts) {
    const before = document.getElementById(id), after = page.getElementById(id);
    if (!before.isEqualNode(after)) before.replaceWith(after);
  }
}

listen();
