"""One cell in full: what ``codingbench show`` prints."""
