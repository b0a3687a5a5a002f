"""From a name to verified weights: the manifest, the bundled files, the Hub, checkpoints and official weights."""
