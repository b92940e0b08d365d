"""What the machine computes with: processor, precision, the settings of torch."""
