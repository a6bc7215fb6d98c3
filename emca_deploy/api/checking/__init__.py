"""What a user's own program or another machine gives, compared with what it should give."""
