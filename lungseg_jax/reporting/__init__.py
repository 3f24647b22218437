"""Reports on an evaluation: the page, its tables and its figures."""
