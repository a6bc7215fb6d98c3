"""Another machine as a target, reached with the system's OpenSSH."""
