"""What a code is, before any training: what ``codingbench inspect`` prints."""
