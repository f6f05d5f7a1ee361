"""Lately side by side with its peers, on one broker and one topic: `python -m bench` writes bench/results.md."""
