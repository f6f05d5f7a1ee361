"""How much hypothesis tries: enough to find, little enough for the folder to run in seconds."""

from hypothesis import settings

# No deadline: on a busy machine one example can take long without meaning anything.
settings.register_profile("unit", deadline=None, max_examples=150)
settings.load_profile("unit")
