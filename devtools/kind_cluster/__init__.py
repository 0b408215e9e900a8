"""The engine behind ``scripts/cluster``: a Lambda service on a kind cluster of its own.

``found`` looks at what is there, ``plan`` says what to run for a wish, and ``runner`` runs it.
"""
