"""Intake: records that robots send, made durable before they are acknowledged."""
