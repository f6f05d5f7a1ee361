"""The secret and the settings of workers that require tokens."""

SECRET = "a secret of more than sixteen bytes"
TOKEN_MODE = {"LATELY_AUTH": "token", "LATELY_TOKEN_SECRET": SECRET}
