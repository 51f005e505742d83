"""Readers for untrusted files, one for each kind of file.

Every reader limits size, depth, count and declared shapes before it allocates memory, and turns every failure into a
`UserError` that names the file, the place in it and a remedy. None executes code from the file.
"""
