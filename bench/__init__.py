"""Measures rapid and lambda_server, beside aws-lambda-rie where it can be had. Linux only."""
