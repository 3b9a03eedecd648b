"""The networks: four backbones, the generator, the discriminator and the baseline; one network a file."""
