"""Small faults put into the product, and whether the tests notice them.

``make mutants`` makes 150 mutants of code that tests run, chosen by a fixed seed, runs each
against the tests that run its line, and writes what became of each to ``record.txt``.
``make mutants CHECK=1`` does the same with the mutants of that record and compares.
"""
