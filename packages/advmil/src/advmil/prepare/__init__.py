"""From slides to what the networks read: tissue, patches, features, clusters, graphs."""
