"""Training: state, loss, step, optimizer, sharding, checkpoints and the loop that drives them."""
