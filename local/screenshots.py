"""Screenshots of the running demo for the README: `python -m local.screenshots [address]`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Error, Page, sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
#: File -> path of the page, width and height of the picture in pixels.
PICTURES = {
    "home": ("/users/user-1", 1000, 760),
    "phone": ("/users/user-1", 390, 760),
    "product": ("/products/Pebble%205", 1000, 760),
    "operator": ("/operator", 1000, 760),
}


def main(address: str) -> int:
    """Take all screenshots; return 1 if there is no browser or the status of a page is not 200."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("screenshots: no chromium on the PATH: install it", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        failed = [
            name
            for name, (path, *size) in PICTURES.items()
            if not take_screenshot(page, name, f"{address}{path}", size)
        ]
        chromium.close()
    return 1 if failed else 0


def take_screenshot(page: Page, name: str, url: str, size: list[int]) -> bool:
    """Take one screenshot; print the reason and return False if the page is not available."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    try:
        response = page.goto(url)
    except Error as exc:
        print(f"screenshots: {url} is not reachable: start `make demo` first ({exc})", file=sys.stderr)
        return False
    if response is None or response.status != 200:
        print(f"screenshots: {url} has the status {response and response.status}, not 200", file=sys.stderr)
        return False
    # Wait for the text that the scripts of the page add.
    if page.locator("#live").count():
        page.locator("#live:not(:empty)").wait_for()
    page.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:6066"))
