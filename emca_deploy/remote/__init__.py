"""How to reach another machine over ssh. Knows no command."""
