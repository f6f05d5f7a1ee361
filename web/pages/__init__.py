"""Pages for people: Jinja2 templates, every value escaped."""

from collections.abc import Mapping
from pathlib import Path

from aiohttp.web import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

# Pages load and run nothing but our own two files, so a value that slipped through could do no harm either.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)


def _marked(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    parts = text.split("`")
    return Markup().join(Markup("<code>%s</code>") % part if place % 2 else part for place, part in enumerate(parts))


_templates.filters["marked"] = _marked


def page(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: object) -> Response:
    """Render `template` with `values` as an HTML answer."""
    return html(render(template, **values), status, headers)


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A rendered page as an answer."""
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
    """The text of `template` with `values` in it, escaped."""
    return _templates.get_template(template).render(values)
