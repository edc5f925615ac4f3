"""A trainer that trains nothing: the local ladder's tests put it before the real one on the path.

It keeps the real one's contract (orders, reports, exit statuses, resumption after a kill) and gives losses by a law.
"""
