"""Access to another machine over ssh. Knows no command."""
