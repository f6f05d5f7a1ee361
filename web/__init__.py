"""The views: read tables, never write them."""
