"""The room of distributed workers: roles, heartbeats, drains. The inline executor needs none of it."""
