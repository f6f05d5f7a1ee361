// Updates the page without a reload. It fetches the page again and patches the parts that changed:
// after each event of the stream that the page names, or at a fixed interval in milliseconds.
// A hidden page closes its stream and fetches nothing, because a browser opens at most six
// connections to a server.
"use strict";

const MIN_PAUSE_MS = 1000, MAX_PAUSE_MS = 30000, TIMEOUT_MS = 15000;
// Recommendations are updated a little later than purchases.
const SECOND_REFRESH_MS = 3000;
const CONTAINERS = ["OL", "TABLE", "TBODY", "SECTION"];
const statusLine = document.getElementById("live");
const { stream: path, everyMs } = statusLine.dataset;
const NEW = "Live. New: ";
const UP_TO_DATE = path ? "Live: new purchases appear automatically." : "Live: this page updates automatically.";
let stream = null, pause = MIN_PAUSE_MS, refreshing = false, refreshAgain = false, secondRefresh = false, timer = 0;

function openStream() {
  if (stream || document.hidden) return;
  const source = stream = new EventSource(path);
  source.addEventListener("open", () => setStatus(UP_TO_DATE));
  source.addEventListener("purchases", () => {
    pause = MIN_PAUSE_MS;
    secondRefresh = true;
    refresh();
  });
  source.addEventListener("error", () => {
    setStatus("Reconnecting …");
    // The browser reconnects a broken stream by itself, but not a stream that the server refused.
    if (source.readyState === EventSource.CLOSED && stream === source) {
      stream = null;
      setTimeout(openStream, pause);
      pause = Math.min(2 * pause, MAX_PAUSE_MS);
    }
  });
}

function onVisibilityChange() {
  if (!document.hidden) {
    path ? openStream() : refresh();
  } else if (stream) {
    stream.close();
    stream = null;
  }
}

async function refresh() {
  if (document.hidden) return;
  if (refreshing) { refreshAgain = true; return; }
  refreshing = true;
  clearTimeout(timer);
  let delay = secondRefresh ? SECOND_REFRESH_MS : everyMs;
  secondRefresh = false;
  try {
    const response = await fetch(location.pathname, {
      headers: { Accept: "text/html" }, signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(response.status);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const names = newNames(page);
    for (const part of document.querySelectorAll("[data-part]")) patch(part, page.getElementById(part.id));
    pause = MIN_PAUSE_MS;
    if (names.length) statusLine.textContent = NEW + names.join(", ");
    else if (!statusLine.textContent.startsWith(NEW)) setStatus(UP_TO_DATE);
  } catch {
    setStatus("Reconnecting …");
    delay = pause;
    pause = Math.min(2 * pause, MAX_PAUSE_MS);
  }
  refreshing = false;
  if (refreshAgain) { refreshAgain = false; refresh(); } else if (delay) timer = setTimeout(refresh, Number(delay));
}

// Changes the text only if it differs: a screen reader announces every change.
function setStatus(text) {
  if (statusLine.textContent !== text) statusLine.textContent = text;
}

// Returns the product names of the purchases in `page` that precede all purchases in this document.
function newNames(page) {
  const name = (row) => row.querySelector(".name").textContent.trim();
  const key = (row) => `${row.querySelector("time").dateTime} ${name(row)}`;
  const rows = [...page.querySelectorAll("#purchases li")];
  const displayed = new Set([...document.querySelectorAll("#purchases li")].map(key));
  const end = rows.findIndex((row) => displayed.has(key(row)));
  return rows.slice(0, end < 0 ? rows.length : end).map(name);
}

// Makes `current` equal to `target`. Keeps equal elements, and with them the focus and the scroll position.
function patch(current, target) {
  if (current.isEqualNode(target)) return;
  if (!CONTAINERS.includes(current.tagName) || !current.cloneNode().isEqualNode(target.cloneNode())) {
    current.replaceWith(target);
    return;
  }
  let child = current.firstElementChild;
  for (const targetChild of [...target.children]) {
    let equal = child;
    while (equal && !equal.isEqualNode(targetChild)) equal = equal.nextElementSibling;
    if (equal) {
      while (child !== equal) child = removeElement(child);
      child = equal.nextElementSibling;
    } else if (child && child.tagName === targetChild.tagName && CONTAINERS.includes(child.tagName)) {
      const next = child.nextElementSibling;
      patch(child, targetChild);
      child = next;
    } else {
      current.insertBefore(targetChild, child);
    }
  }
  while (child) child = removeElement(child);
}

// Removes an element and returns its next sibling.
function removeElement(element) {
  const next = element.nextElementSibling;
  element.remove();
  return next;
}

document.addEventListener("visibilitychange", onVisibilityChange);
onVisibilityChange();
