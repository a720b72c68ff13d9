"""The room of distributed workers: roles, heartbeats, drains. The inline executor of illume_loop/loop needs none of it."""
