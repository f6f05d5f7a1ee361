// Shows what changed without a reload: the page is asked for again, and what is new in its parts is put into place. When:
// at each event of the stream that the page names, or else every so many milliseconds. A page that is not looked at asks
// for nothing: a browser has six connections to a server.
"use strict";

const FIRST_PAUSE_MS = 1000, LONGEST_PAUSE_MS = 30000, PATIENCE_MS = 15000;
// What goes with a purchase is known a little later than the purchase.
const AFTERWARDS_MS = 3000;
const LISTS = ["OL", "TABLE", "TBODY", "SECTION"];
const state = document.getElementById("live");
const { stream: path, everyMs } = state.dataset;
const NEW = "Live. New: ";
const upToDate = path ? "Live: new purchases appear by themselves." : "Live: this page is kept up to date.";
let stream = null, pause = FIRST_PAUSE_MS, refreshing = false, again = false, afterwards = false, timer = 0;

function listen() {
  if (stream || document.hidden) return;
  const opened = stream = new EventSource(path);
  opened.addEventListener("open", () => tell(upToDate));
  opened.addEventListener("purchases", () => {
    pause = FIRST_PAUSE_MS;
    afterwards = true;
    refresh();
  });
  opened.addEventListener("error", () => {
    tell("Reconnecting …");
    // A stream that was refused is closed for good; one that broke connects again by itself.
    if (opened.readyState === EventSource.CLOSED && stream === opened) {
      stream = null;
      setTimeout(listen, pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  });
}

function look() {
  if (!document.hidden) {
    path ? listen() : refresh();
  } else if (stream) {
    stream.close();
    stream = null;
  }
}

async function refresh() {
  if (document.hidden) return;
  if (refreshing) { again = true; return; }
  refreshing = true;
  clearTimeout(timer);
  let next = afterwards ? AFTERWARDS_MS : everyMs;
  afterwards = false;
  try {
    const answer = await fetch(location.pathname, {
      headers: { Accept: "text/html" }, signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const names = news(page);
    for (const part of document.querySelectorAll("[data-part]")) patch(part, page.getElementById(part.id));
    pause = FIRST_PAUSE_MS;
    if (names.length) state.textContent = NEW + names.join(", ");
    else if (!state.textContent.startsWith(NEW)) tell(upToDate);
  } catch {
    tell("Reconnecting …");
    next = pause;
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
  refreshing = false;
  if (again) { again = false; refresh(); } else if (next) timer = setTimeout(refresh, Number(next));
}

// Only what is new is said, or a screen reader would say it again and again.
function tell(text) {
  if (state.textContent !== text) state.textContent = text;
}

// The names of the purchases of a page that come before all that are shown here already.
function news(page) {
  const name = (row) => row.querySelector(".name").textContent.trim();
  const key = (row) => `${row.querySelector("time").dateTime} ${name(row)}`;
  const rows = [...page.querySelectorAll("#purchases li")];
  const shown = new Set([...document.querySelectorAll("#purchases li")].map(key));
  const old = rows.findIndex((row) => shown.has(key(row)));
  return rows.slice(0, old < 0 ? rows.length : old).map(name);
}

// Make `before` equal `after` and keep what is equal in it, and with that the focus and the place on the screen.
function patch(before, after) {
  if (before.isEqualNode(after)) return;
  if (!LISTS.includes(before.tagName) || !before.cloneNode().isEqualNode(after.cloneNode())) {
    before.replaceWith(after);
    return;
  }
  let at = before.firstElementChild;
  for (const wanted of [...after.children]) {
    let same = at;
    while (same && !same.isEqualNode(wanted)) same = same.nextElementSibling;
    if (same) {
      while (at !== same) at = dropped(at);
      at = same.nextElementSibling;
    } else if (at && at.tagName === wanted.tagName && LISTS.includes(at.tagName)) {
      const next = at.nextElementSibling;
      patch(at, wanted);
      at = next;
    } else {
      before.insertBefore(wanted, at);
    }
  }
  while (at) at = dropped(at);
}

function dropped(element) {
  const next = element.nextElementSibling;
  element.remove();
  return next;
}

document.addEventListener("visibilitychange", look);
look();
