"""The contract between exporter and device: a bundle's folder, its manifest, its certificate."""
