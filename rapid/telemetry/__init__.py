"""Telemetry records: what they say, who subscribed to them, and how they get there."""
