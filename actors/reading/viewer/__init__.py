"""The viewer: pages about runs, served on loopback or kept as one file.

`told/` answers questions about runs as plain data, `serving/` passes the answers on over HTTP or
into a file, and `pages/` shows them in a browser.
"""
