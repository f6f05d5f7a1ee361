"""Faust's web server with our errors, and without its own pages."""

import faust.web.drivers.aiohttp as driver
from faust.types import AppT

from web.errors import problems


class Web(driver.Web):
    """Replaces: Faust's /table, /router, /graph and statistics pages, which show everybody's data to anybody."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: AppT, **kwargs: object) -> None:
        super().__init__(app, **kwargs)
        self.web_app.middlewares.append(problems)
