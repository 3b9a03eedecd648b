"""The networks: encoder, ASPP, decoder, and how weights are read."""
