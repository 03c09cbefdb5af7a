"""What tests of several folders share; `plain` is the training that ours must equal."""
