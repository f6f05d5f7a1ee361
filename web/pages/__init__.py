"""HTML pages: Jinja2 templates that escape every value."""

from collections.abc import Mapping
from pathlib import Path

from aiohttp.web import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

# A page may load and run only our own two files, so an unescaped value could not run a script.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)


def _mark_code(text: str) -> Markup:
    """Return `text` with its parts in backticks as <code>."""
    parts = text.split("`")
    return Markup().join(Markup("<code>%s</code>") % part if index % 2 else part for index, part in enumerate(parts))


_templates.filters["marked"] = _mark_code


def page(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: object) -> Response:
    """Return `template`, rendered with `values`, as an HTML response."""
    return html(render(template, **values), status, headers)


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a rendered page as a response."""
    return Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "private, no-cache",
            "Referrer-Policy": "same-origin",
            **(headers or {}),
        },
    )


def render(template: str, **values: object) -> str:
    """Return the text of `template` with the escaped `values`."""
    return _templates.get_template(template).render(values)
