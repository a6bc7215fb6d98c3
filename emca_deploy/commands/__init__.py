"""The commands of emca-deploy, one thin file each, loaded only when called."""
