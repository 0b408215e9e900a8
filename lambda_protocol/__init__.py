"""What Lambda Server and rapid must agree on: names, limits, errors and the two wire codecs.

A module lives here only if both programs import it.
"""
