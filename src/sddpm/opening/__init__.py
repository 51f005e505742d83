"""Reading what comes from outside, one opener for each kind of file.

Every opener bounds size, depth, count and declared shapes before it allocates, and turns every failure into a
`UserError` that names the file, the place in it and what would help. None executes anything.
"""
