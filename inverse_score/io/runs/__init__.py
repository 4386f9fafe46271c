"""The folder of a run: files that appear whole, results, and the page about them."""
