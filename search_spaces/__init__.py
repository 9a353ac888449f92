"""Questions: studies as YAML files, read by `ablate`."""
