"""Write the results of a store as one HTML page that needs no network, and its figures as files."""
