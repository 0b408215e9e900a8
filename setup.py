"""Metadata lives in setup.cfg; this file lets every pip install the project."""

from setuptools import setup

setup()
