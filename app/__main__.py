"""`python -m app …` is `lately …`."""

from app.cli import main

main()
