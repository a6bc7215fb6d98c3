"""The agent: what runs requests on a remote machine."""
