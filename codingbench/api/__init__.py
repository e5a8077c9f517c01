"""What a user of the library calls from Python; :mod:`codingbench` imports it when it is used."""
