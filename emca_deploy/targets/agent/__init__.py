"""The agent, which runs requests on a remote machine."""
