"""The records that commands write and reports read."""
