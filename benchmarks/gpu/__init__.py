"""What a GPU does with the models, checked against the CPU and weighed against the card."""
